"""Blocks that somebody else may end."""

import asyncio
import contextlib

import pytest

from edge_proxy.errors import ClientGone, Draining, EdgeError
from edge_proxy.interruption import Interruption


async def _interrupted(*errors: EdgeError) -> None:
    async with Interruption() as block:
        for error in errors:
            asyncio.get_running_loop().call_soon(block.interrupt, error)
        await asyncio.Event().wait()


async def test_a_block_ends_with_the_error_of_whoever_ended_it():
    with pytest.raises(ClientGone):
        await _interrupted(ClientGone())

    await asyncio.sleep(0)  # nothing of the cancellation is left


async def test_the_first_error_wins():
    with pytest.raises(Draining):
        await _interrupted(Draining(), ClientGone())


async def test_a_block_that_has_just_ended_still_raises_and_leaves_no_cancellation_behind():
    with pytest.raises(ClientGone):
        async with Interruption() as block:
            block.interrupt(ClientGone())

    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_after_the_block_nothing_happens():
    async with Interruption() as block:
        pass
    block.interrupt(ClientGone())

    await asyncio.sleep(0)


async def test_a_cancellation_by_somebody_else_stays_one():
    async def run() -> None:
        async with Interruption():
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_when_both_happen_the_cancellation_wins():
    blocks: list[Interruption] = []

    async def run() -> None:
        async with Interruption() as block:
            blocks.append(block)
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    blocks[0].interrupt(ClientGone())
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_another_error_inside_is_not_hidden():
    async def run() -> None:
        async with Interruption() as block:
            block.interrupt(ClientGone())
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await run()
