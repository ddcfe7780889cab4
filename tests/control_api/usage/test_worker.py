import asyncio
import random

import pytest

from control_api.errors import NotFound
from control_api.usage.worker import AT_ONCE, UsageWorker
from tests.control_api.running import eventually

USAGE = "GET /backend-api/wham/usage"


@pytest.fixture
def worker(parts):
    return UsageWorker(
        database=parts.database,
        usage=parts.usage,
        queries=parts.queries,
        interval=60.0,
        now=parts.clock,
        source=random.Random(1),
    )


async def ticked(worker):
    await worker.tick()
    running = len(worker._running)
    await eventually(lambda: not worker._running)
    return running


async def test_each_account_is_asked_once_an_interval_and_not_all_at_the_same_moment(parts, worker):
    for _ in range(3):
        await parts.sign_in()
    begun = []
    for _ in range(70):
        begun.append(await ticked(worker))
        parts.clock.forward(1)

    assert 3 <= await parts.simulator.requests(USAGE) <= 6
    assert max(begun) < 3


async def test_accounts_that_cannot_serve_are_not_asked(parts, worker):
    account_id, _ = await parts.sign_in()
    await parts.accounts.pause(account_id)
    for _ in range(3):
        await ticked(worker)
        parts.clock.forward(60)

    assert await parts.simulator.requests(USAGE) == 0


async def test_an_account_that_met_a_limit_is_asked_ahead_of_its_schedule(parts, worker):
    account_id, _ = await parts.sign_in()
    for _ in range(12):
        await ticked(worker)
        parts.clock.forward(1)
    before = await parts.simulator.requests(USAGE)

    for _ in range(5):
        parts.queries.ask_soon(account_id)
        parts.clock.forward(1)
        await ticked(worker)

    assert (before, await parts.simulator.requests(USAGE)) == (1, 2)


async def test_few_queries_run_at_once(parts, worker):
    for _ in range(AT_ONCE + 3):
        await parts.sign_in()
    await ticked(worker)
    parts.clock.forward(600)

    assert await ticked(worker) == AT_ONCE


async def test_one_round_that_fails_does_not_end_the_worker(parts, worker, monkeypatch):
    rounds: list[int] = []

    async def tick():
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise NotFound("There is no such account.")

    monkeypatch.setattr("control_api.usage.worker.TICK", 0.01)
    monkeypatch.setattr(worker, "tick", tick)
    running = asyncio.create_task(worker.run())
    try:
        await eventually(lambda: len(rounds) > 1 or running.done())
    finally:
        running.cancel()

    assert len(rounds) > 1
