"""What PostgreSQL does that SQLite does not. `conftest.ON_BOTH` names the modules that run on either."""

import asyncio

import psycopg.errors
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel, text

from control_api.controller_lock import ControllerLock, ControllerRow
from control_api.database import Database, database_error
from control_api.errors import DatabaseAway, DatabaseBusy, DatabaseFull
from tests.control_api.running import running_control, settings_for


@pytest.fixture
async def database(postgresql):
    name = postgresql.new_database()
    opened = Database(postgresql.url(name))
    await opened.migrate()
    yield opened
    await opened.close()
    postgresql.drop_database(name)


async def test_the_migrations_make_exactly_the_tables_of_the_models_here_too(database):
    await database.migrate()
    async with database.read() as session:
        connection = await session.connection()
        difference = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), SQLModel.metadata)
        )

    assert difference == []


async def test_a_server_that_is_away_is_told_as_such_and_used_again_when_it_is_back(database, postgresql):
    postgresql.stop()
    with pytest.raises(DatabaseAway):
        await database.ping()
    postgresql.start()

    await database.ping()


async def test_a_row_that_somebody_else_has_locked_for_too_long_is_busy(database):
    await ControllerLock(database, ttl=60.0).take()

    async def wait_for_it():
        async with database.write() as other:
            await other.exec(text("SET LOCAL lock_timeout = 100"))
            await other.get(ControllerRow, 1, with_for_update=True)

    async with database.write() as holder:
        await holder.get(ControllerRow, 1, with_for_update=True)
        with pytest.raises(DatabaseBusy):
            await wait_for_it()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (psycopg.errors.DiskFull("could not extend file"), DatabaseFull),
        (psycopg.errors.DeadlockDetected("deadlock detected"), DatabaseBusy),
        (psycopg.errors.SerializationFailure("could not serialize access"), DatabaseBusy),
        (psycopg.errors.AdminShutdown("terminating connection"), DatabaseAway),
        (psycopg.errors.TooManyConnections("sorry, too many clients already"), DatabaseAway),
    ],
)
def test_what_the_server_says_by_number_is_told_in_our_words(error, told):
    assert isinstance(database_error(OperationalError("INSERT …", {}, error)), told)


async def test_of_two_controllers_that_saw_the_lock_free_one_is_refused(database):
    first, second = (ControllerLock(database, ttl=60.0, host="here", pid=pid) for pid in (1, 2))
    await first.take()
    await first.give_back()
    async with database.read() as session:
        seen = await session.get(ControllerRow, 1)
    together = await asyncio.gather(first._write(expected=seen), second._write(expected=seen), return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in together) == ["StartupError", "int"]


async def test_the_whole_control_api_stands_on_it_and_keeps_everything_over_a_restart(postgresql, tmp_path, simulator):
    name = postgresql.new_database()
    settings = settings_for(tmp_path, simulator=simulator, database_url=SecretStr(postgresql.url(name)))
    async with running_control(settings) as control:
        account_id = await control.import_account(await simulator.account())
        await control.call("POST", f"/api/accounts/{account_id}/refresh")
        await control.call("POST", "/api/keys", {"name": "laptop"}, status=201)
    async with running_control(settings) as control:
        account = await control.account(account_id)
        events = await control.events(account_id)
        keys = (await control.call("GET", "/api/keys"))["items"]
    postgresql.drop_database(name)

    assert (account["status"], events) == ("active", ["imported", "refreshed"])
    assert [key["name"] for key in keys] == ["laptop"]
    assert not list(tmp_path.rglob("control.db"))
    assert postgresql.url(name) not in repr(settings)
