import asyncio

import pytest

from control_api.changes import START_GRACE, PolicyChanges
from control_api.errors import PolicyNotAccepted


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def changes(clock):
    return PolicyChanges(clock=clock)


async def test_whoever_marks_a_change_can_wait_until_it_is_in_force(changes):
    changes.mark()
    waiting = asyncio.create_task(changes.settle(5))
    number = await changes.take()

    changes.done(number, 7)

    assert await waiting == 7
    assert changes.version == 7


async def test_an_older_push_does_not_settle_a_newer_change(changes):
    number = await changes.take()
    changes.mark()
    waiting = asyncio.create_task(changes.settle(5))
    await asyncio.sleep(0)

    changes.done(number, 1)
    await asyncio.sleep(0)
    unsettled = not waiting.done()
    changes.done(await changes.take(), 2)

    assert unsettled
    assert await waiting == 2


async def test_a_refused_policy_is_told_to_whoever_waits(changes):
    changes.mark()
    waiting = asyncio.create_task(changes.settle(5))
    number = await changes.take()
    await asyncio.sleep(0)

    changes.refused(number, PolicyNotAccepted("no"))

    with pytest.raises(PolicyNotAccepted):
        await waiting


async def test_nobody_waits_for_a_server_that_is_away_unless_all_has_just_started(changes, clock):
    changes.watch(lambda: False)
    clock.now = START_GRACE + 1

    assert await changes.settle(3_600) is None


async def test_taking_waits_for_a_change(changes):
    changes.done(await changes.take(), 1)
    taking = asyncio.create_task(changes.take())
    await asyncio.sleep(0)
    idle = not taking.done()
    changes.mark()

    assert idle
    assert await taking == 2
