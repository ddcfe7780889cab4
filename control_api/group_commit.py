"""Several small writes in one transaction: what has piled up while one commit was under way goes into the next.

A commit costs a sync of the disk. Refreshes that come together would wait for each other's, each holding a token that
is stored nowhere yet; together they wait for one. Each write still succeeds or fails by itself, as a savepoint.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlmodel.ext.asyncio.session import AsyncSession

from control_api.database import Database
from control_api.errors import ControlError

T = TypeVar("T")
Write = Callable[[AsyncSession], Awaitable[T]]
MOST_TOGETHER = 100


class GroupCommit:
    """Collects writes and commits them together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Write[Any], asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def run(self, write: Write[T]) -> T:
        """Returns what `write` returned, once it is committed. Raises what it raised, or `DatabaseError` for all.

        A caller that is cancelled leaves it open whether its write happened.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="group commit")
        return await done

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
            try:
                outcomes = await self._write(batch)
            except Exception as error:
                outcomes = [error] * len(batch)
            for (_, done), outcome in zip(batch, outcomes, strict=True):
                if done.done():
                    continue
                if isinstance(outcome, Exception):
                    done.set_exception(outcome)
                else:
                    done.set_result(outcome)

    async def _write(self, batch: list[tuple[Write[Any], asyncio.Future[Any]]]) -> list[Any]:
        outcomes: list[Any] = []
        async with self._database.write() as session:
            for write, _ in batch:
                try:
                    async with session.begin_nested():
                        outcomes.append(await write(session))
                except ControlError as error:
                    outcomes.append(error)
        return outcomes
