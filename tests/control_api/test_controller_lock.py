import asyncio

import pytest

from control_api.controller_lock import ControllerLock, LockLost
from control_api.database import Database
from service_runtime.process import StartupError
from tests.control_api.running import running_control, settings_for


def lock(parts, *, host="here", pid=1, alive=True, ttl=0.4):
    return ControllerLock(parts.database, ttl=ttl, host=host, pid=pid, is_alive=lambda _pid: alive, now=lambda: 1_000.0)


async def test_terms_grow_with_each_take_over(parts):
    first = await lock(parts, pid=1).take()
    second = await lock(parts, pid=2, alive=False).take()

    assert (first, second) == (1_000_000, 1_000_001)


async def test_a_lock_that_was_given_back_is_free_at_once(parts):
    held = lock(parts, ttl=600)
    await held.take()
    await held.give_back()

    assert await lock(parts, host="elsewhere", ttl=600).take() == 1_000_001


async def test_a_process_of_this_host_that_is_gone_holds_nothing(parts):
    await lock(parts, pid=1).take()

    assert await lock(parts, pid=2, alive=False, ttl=600).take() == 1_000_001


async def test_an_earlier_life_with_the_same_process_id_holds_nothing(parts):
    await lock(parts, pid=1).take()

    assert await lock(parts, pid=1, ttl=600).take() == 1_000_001


async def test_a_silent_holder_elsewhere_is_replaced_after_the_ttl_and_finds_out(parts):
    silent = lock(parts, host="elsewhere")
    await silent.take()

    await lock(parts).take()

    with pytest.raises(LockLost):
        await silent.keep()


async def test_a_holder_that_is_alive_is_never_replaced(parts):
    alive = lock(parts, host="elsewhere")
    await alive.take()
    keeping = asyncio.create_task(alive.keep())

    with pytest.raises(StartupError, match="another control API runs"):
        await lock(parts).take()

    assert not keeping.done()
    keeping.cancel()


async def test_who_does_not_get_the_lock_leaves_the_schema_alone(parts, tmp_path, monkeypatch):
    alive = lock(parts, host="elsewhere")
    await alive.take()
    keeping = asyncio.create_task(alive.keep())
    migrations = []
    monkeypatch.setattr(Database, "migrate", lambda _: migrations.append("migrated"))

    with pytest.raises(StartupError, match="another control API runs"):
        async with running_control(settings_for(tmp_path)):
            pass

    assert migrations == []
    keeping.cancel()
