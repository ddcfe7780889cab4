"""One controller a database: a lock row with a heartbeat, and the term that fences an older one at admission.

No clocks are compared: who wants the lock watches whether the row's beat moves. It takes over when the beat has stood
still for a whole TTL, and at once when the row names a process of this very host that is gone (or this one's own id,
left by an earlier life). Whoever finds another holder in the row has lost the lock and stops.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy import BigInteger, Column
from sqlmodel import Field, SQLModel

from control_api.database import Database
from control_api.errors import DatabaseError
from service_runtime.process import StartupError

log = structlog.get_logger(__name__)


LOCK_TABLE = "controller"


class LockLost(Exception):
    """Another process holds the lock now: this one must not write any more."""


def _count() -> Any:
    return Field(default=0, sa_column=Column(BigInteger, nullable=False))


class ControllerRow(SQLModel, table=True):
    """The one row that says who the controller is."""

    __tablename__ = LOCK_TABLE

    id: int = Field(default=1, primary_key=True)
    holder: str = Field(default="", max_length=64)
    host: str = Field(default="", max_length=255)
    pid: int = 0
    beat: int = _count()
    term: int = _count()


class ControllerLock:
    """The lock of this process."""

    def __init__(
        self,
        database: Database,
        *,
        ttl: float,
        host: str | None = None,
        pid: int | None = None,
        is_alive: Callable[[int], bool] | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._ttl = ttl
        self._host = host or socket.gethostname()
        self._pid = os.getpid() if pid is None else pid
        self._is_alive = is_alive or is_process_alive
        self._now = now
        self._monotonic = monotonic
        self._holder = secrets.token_hex(16)

    async def take(self) -> int:
        """Takes the lock and returns this controller's term. Raises `StartupError` when somebody else is alive."""
        seen: tuple[str, int] | None = None
        since = self._monotonic()
        while True:
            async with self._database.read() as session:
                row = await session.get(ControllerRow, 1)
            if row is None or not row.holder or self._is_gone(row):
                break
            if seen is None:
                log.info("another controller held this database; watching whether it is alive", ttl=self._ttl)
            elif seen != (row.holder, row.beat):
                raise StartupError(
                    f"another control API runs on this database (host {row.host}, process {row.pid}); stop it first"
                )
            elif self._monotonic() - since > self._ttl:
                break
            seen = (row.holder, row.beat)
            await asyncio.sleep(min(0.25, self._ttl / 10))
        return await self._write(expected=row)

    async def keep(self) -> None:
        """Moves the beat until cancelled. Raises `LockLost` when the row names somebody else."""
        while True:
            await asyncio.sleep(self._ttl / 4)
            try:
                async with self._database.write() as session:
                    row = await session.get(ControllerRow, 1, with_for_update=True)
                    if row is None or row.holder != self._holder:
                        raise LockLost
                    row.beat += 1
                    session.add(row)
            except DatabaseError as error:
                # Nobody else can write either; whoever comes first when it is over decides.
                log.warning("the controller's lock could not be renewed", reason=str(error))

    async def give_back(self) -> None:
        """Frees the lock, so that a successor starts at once."""
        try:
            async with self._database.write() as session:
                row = await session.get(ControllerRow, 1, with_for_update=True)
                if row is not None and row.holder == self._holder:
                    row.holder = ""
                    session.add(row)
        except DatabaseError as error:
            log.warning("the controller's lock could not be given back", reason=str(error))

    async def _write(self, *, expected: ControllerRow | None) -> int:
        async with self._database.write() as session:
            row = await session.get(ControllerRow, 1, with_for_update=True)
            if (row.holder, row.beat) != (expected.holder, expected.beat) if row and expected else row is not expected:
                raise StartupError("another control API has just started on this database")
            row = row or ControllerRow(id=1)
            row.holder, row.host, row.pid = self._holder, self._host, self._pid
            row.beat += 1
            row.term = max(row.term + 1, int(self._now() * 1000))
            session.add(row)
        return row.term

    def _is_gone(self, row: ControllerRow) -> bool:
        if row.host != self._host:
            return False
        # A container gives its process the same id in each life, so a row with our own id is an earlier life's.
        return row.pid == self._pid or not self._is_alive(row.pid)


def is_process_alive(pid: int) -> bool:
    """Returns whether a process of this host exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
