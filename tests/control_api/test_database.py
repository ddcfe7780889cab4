import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel

from control_api import database as database_module
from control_api.accounts.models import Account
from control_api.database import Database, database_error
from control_api.errors import DatabaseAway, DatabaseBusy, DatabaseFull, problem_of
from control_api.keys.models import KeyInput


def account(account_id):
    return Account(
        id=account_id,
        kind="api_key",
        seat_key=account_id,
        name="n",
        base_url="https://x",
        created_at=1.0,
        status_changed_at=1.0,
        credential_obtained_at=1.0,
    )


async def create_key(parts, number):
    row, _ = await parts.keys.create(KeyInput(name="x" * 200, models=[f"m{number}"]))
    return row.id


@pytest.fixture
async def database(tmp_path):
    opened = Database(f"sqlite+aiosqlite:///{tmp_path / 'control.db'}")
    await opened.migrate()
    yield opened
    await opened.close()


async def test_migrating_twice_is_fine_and_the_file_is_private_and_in_wal_mode(database, tmp_path):
    await database.migrate()

    connection = sqlite3.connect(tmp_path / "control.db")
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.close()
    assert mode == "wal"
    assert (tmp_path / "control.db").stat().st_mode & 0o777 == 0o600


async def test_the_migrations_make_exactly_the_tables_of_the_models(database):
    async with database.read() as session:
        connection = await session.connection()
        difference = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), SQLModel.metadata)
        )

    assert difference == []


async def test_a_write_that_raises_leaves_nothing_behind(database):
    async def fail_half_way():
        async with database.write() as session:
            session.add(account("half"))
            await session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_half_way()

    async with database.read() as session:
        assert await session.get(Account, "half") is None


async def test_a_database_that_another_program_holds_is_busy_and_then_works_again(database, tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_MS", 50)
    other = sqlite3.connect(tmp_path / "control.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    impatient = Database(f"sqlite+aiosqlite:///{tmp_path / 'control.db'}")
    with pytest.raises(DatabaseBusy):
        async with impatient.write() as session:
            session.add(account("late"))
    other.execute("ROLLBACK")
    other.close()

    async with impatient.write() as session:
        session.add(account("late"))
    await impatient.close()

    async with database.read() as session:
        assert await session.get(Account, "late") is not None


async def test_a_full_disk_is_told_as_507_and_loses_nothing(parts):
    kept, _ = await parts.keys.create(KeyInput(name="kept"))
    room = {"pages": 1}  # no more than there are

    def bound_pages(connection, _record, _proxy):
        # What a full disk answers, without filling one: SQLite refuses to grow the file.
        connection.execute(f"PRAGMA max_page_count = {room['pages']}")

    event.listen(parts.database._engine.sync_engine, "checkout", bound_pages)
    made = {kept.id}

    async def fill():
        for number in range(2_000):
            made.add(await create_key(parts, number))

    with pytest.raises(DatabaseFull) as full:
        await fill()
    room["pages"] = 2**30
    after, _ = await parts.keys.create(KeyInput(name="after"))

    listed, _ = await parts.keys.page(after_id="", limit=5_000)
    assert problem_of(full.value).status == 507
    assert {key.id for key in listed} == {*made, after.id}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("database is locked", DatabaseBusy),
        ("database or disk is full", DatabaseFull),
        ("disk I/O error", DatabaseAway),
        ("unable to open database file", DatabaseAway),
    ],
)
def test_what_the_driver_says_is_told_by_kind(message, kind):
    error = OperationalError("INSERT …", {}, sqlite3.OperationalError(message))

    assert isinstance(database_error(error), kind)
