"""Stopping in order."""

import asyncio

import pytest

from edge_proxy.drain import Drain
from edge_proxy.errors import Draining, EdgeError
from edge_proxy.interruption import Interruption


async def test_nothing_new_begins_once_it_has_begun():
    drain = Drain()
    drain.check()

    await drain.run(1.0)

    with pytest.raises(Draining):
        drain.check()


async def test_it_ends_as_soon_as_what_runs_has_finished():
    drain = Drain()
    with drain.running(_never):
        draining = asyncio.create_task(drain.run(60.0))
        await drain.begun.wait()
        assert not draining.done()

    assert await asyncio.wait_for(draining, 5) == 0


async def test_what_outlasts_it_is_interrupted_and_may_say_goodbye():
    drain = Drain()
    goodbyes: list[str] = []

    async def turn() -> None:
        with drain.running(block.interrupt):
            try:
                async with block:
                    await asyncio.Event().wait()
            except Draining:
                goodbyes.append("failed")

    block = Interruption()
    running = asyncio.create_task(turn())
    await asyncio.sleep(0)

    assert await drain.run(0.01) == 1
    assert goodbyes == ["failed"]
    await running


def _never(_error: EdgeError) -> None:
    raise AssertionError("was interrupted")
