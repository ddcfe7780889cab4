"""Many waits, one timer."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from edge_proxy.patience import Patience


@pytest.fixture
async def patience() -> AsyncIterator[Patience]:
    kept = Patience()
    yield kept
    kept.close()


async def _soon(result: str) -> str:
    await asyncio.sleep(0)
    return result


async def test_a_wait_that_ends_in_time_returns_its_result(patience: Patience):
    assert [await patience.wait(_soon(word), within=5) for word in ("a", "b")] == ["a", "b"]


async def test_a_wait_that_does_not_end_is_a_timeout_and_the_next_one_works(patience: Patience):
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await patience.wait(asyncio.Event().wait(), within=0.01)

    assert await patience.wait(_soon("a"), within=5) == "a"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_shorter_wait_after_a_longer_one_is_not_longer(patience: Patience):
    await patience.wait(_soon("a"), within=60)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(patience.wait(asyncio.Event().wait(), within=0.01), 5)


async def test_a_longer_wait_after_a_shorter_one_is_not_shorter(patience: Patience):
    await patience.wait(_soon("a"), within=0.01)

    assert await patience.wait(asyncio.sleep(0.05, "late"), within=5) == "late"


async def test_an_error_is_passed_on(patience: Patience):
    async def fail() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await patience.wait(fail(), within=5)


async def test_a_cancellation_by_somebody_else_stays_one():
    async def run() -> None:
        await Patience().wait(asyncio.Event().wait(), within=60)

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timer_that_rings_between_waits_does_nothing(patience: Patience):
    await patience.wait(_soon("a"), within=0.001)
    await asyncio.sleep(0.01)

    assert await patience.wait(_soon("b"), within=5) == "b"


async def test_each_of_several_tasks_has_its_own_deadline(patience: Patience):
    async def outcome(within: float, takes: float) -> str:
        try:
            return await patience.wait(asyncio.sleep(takes, "in time"), within=within)
        except TimeoutError:
            return "too late"

    waits = [outcome(60, 0.03), outcome(0.01, 60), outcome(0.02, 60), outcome(0.05, 0.01)]
    outcomes = await asyncio.wait_for(asyncio.gather(*waits), 5)

    assert outcomes == ["in time", "too late", "too late", "in time"]


async def test_a_timeout_of_one_task_leaves_the_next_wait_of_that_task_alone(patience: Patience):
    async def twice() -> str:
        with pytest.raises(TimeoutError):
            await patience.wait(asyncio.Event().wait(), within=0.01)
        return await patience.wait(_soon("a"), within=60)

    assert list(await asyncio.wait_for(asyncio.gather(twice(), twice()), 5)) == ["a", "a"]
