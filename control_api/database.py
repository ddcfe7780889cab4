"""The database: an async engine, short transactions, migrations at start.

Rules: a transaction never spans a call to anybody else; every write takes the write lock at its beginning (`BEGIN
IMMEDIATE` on SQLite), so that it can never fail half way for having read first; models stay portable to PostgreSQL.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel.ext.asyncio.session import AsyncSession

from control_api.errors import DatabaseAway, DatabaseBusy, DatabaseError, DatabaseFull

MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_TIMEOUT_MS = 5_000
_DISK_FULL = "53100"
_BUSY_STATES = frozenset({"40001", "40P01", "55P03"})
"""Of PostgreSQL: could not serialise, deadlock, lock not available."""


class Database:
    """Hands out sessions. All errors of the driver that mean "not now" come out as `DatabaseError`."""

    def __init__(self, url: str) -> None:
        self._sqlite = make_url(url).get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(url) if self._sqlite else _server_engine(url)
        self._writer = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Opens a session that sees one state of the database and changes nothing."""
        with _translated():
            async with AsyncSession(self._engine, expire_on_commit=False) as session:
                yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Opens a session whose changes are committed when the block ends, and dropped when it raises."""
        # Writers of this process queue here, in order, instead of polling for SQLite's lock.
        with _translated():
            async with self._writer if self._sqlite else nullcontext(), self._engine.connect() as connection:
                await connection.execution_options(sluicegate_write=True)
                async with AsyncSession(connection, expire_on_commit=False) as session, session.begin():
                    yield session

    async def has_table(self, name: str) -> bool:
        """Returns whether a table exists; none does before the first migration."""
        async with self.read() as session:
            connection = await session.connection()
            return await connection.run_sync(lambda sync: inspect(sync).has_table(name))

    async def migrate(self) -> None:
        """Brings the schema up to date."""
        with _translated():
            async with self._engine.connect() as connection:
                await connection.execution_options(sluicegate_write=True)
                async with connection.begin():
                    await connection.run_sync(_upgrade)

    async def ping(self) -> None:
        """Raises `DatabaseError` when the database does not answer."""
        async with self.read() as session:
            await session.exec(text("SELECT 1"))  # type: ignore[call-overload]  # SQLModel types only its own selects

    async def close(self) -> None:
        """Closes all connections."""
        await self._engine.dispose()


class _translated:  # noqa: N801  # used as a block, like the context managers of contextlib
    """Turns driver errors into ours. A class, because a generator would wrap an error thrown through two yields."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: Any) -> None:
        if isinstance(error, DBAPIError):
            translated = database_error(error)
            if translated is not None:
                raise translated from error


def database_error(error: DBAPIError) -> DatabaseError | None:
    """Returns our error for one of the driver that has nothing to do with the statement, else None."""
    message = str(error.orig).lower()
    state = getattr(error.orig, "sqlstate", None)
    if "disk is full" in message or "no space left" in message or state == _DISK_FULL:
        return DatabaseFull("The disk that holds the database is full; nothing was stored.")
    if state in _BUSY_STATES or (state is None and ("locked" in message or "busy" in message)):
        return DatabaseBusy("Another program holds the database; nothing was stored.", retry_after=2)
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return DatabaseAway("The database cannot be read or written.", retry_after=5)
    return None


def _sqlite_engine(url: str) -> AsyncEngine:
    path = make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        Path(path).touch(mode=0o600, exist_ok=True)
    engine = create_async_engine(url)
    event.listen(engine.sync_engine, "connect", _on_connect)
    event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def _server_engine(url: str) -> AsyncEngine:
    """Returns an engine for PostgreSQL. Its driver is psycopg (the extra `postgres`), also where the URL names none."""
    address = make_url(url)
    if address.drivername in {"postgres", "postgresql"}:
        address = address.set(drivername="postgresql+psycopg")
    # What holds a row for longer than this will not be done soon; SQLite waits as long for its lock.
    options = {"options": f"-c lock_timeout={_BUSY_TIMEOUT_MS}"} if address.drivername.endswith("psycopg") else {}
    return create_async_engine(address, pool_pre_ping=True, connect_args=options)


def _on_connect(connection: Any, _record: ConnectionPoolEntry) -> None:
    # Without this the driver begins transactions when it likes; we say BEGIN ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # A rotated refresh token exists nowhere else: it must survive a power cut, which NORMAL does not promise.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("sluicegate_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
