"""Asks each account's upstream on a jittered schedule of its own, with few queries at once; and the small sweeps."""

import asyncio
import random
import time
from collections.abc import Callable

import structlog
from sqlmodel import select

from control_api.accounts.models import Account
from control_api.database import Database
from control_api.errors import ControlError
from control_api.usage.queries import UsageQueries
from control_api.usage.service import UsageService, has_usage

log = structlog.get_logger(__name__)
TICK = 1.0
AT_ONCE = 4
FIRST_WITHIN = 10.0
PRUNE_EVERY = 3_600.0


class UsageWorker:
    """Keeps usage fresh until cancelled."""

    def __init__(
        self,
        *,
        database: Database,
        usage: UsageService,
        queries: UsageQueries,
        interval: float,
        now: Callable[[], float] = time.time,
        source: random.Random | None = None,
    ) -> None:
        self._database = database
        self._usage = usage
        self._queries = queries
        self._interval = interval
        self._now = now
        self._random = source or random.Random()  # noqa: S311 (jitter, not secrets)
        self._due: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._pruned_at = 0.0

    async def run(self) -> None:
        """Works until cancelled."""
        try:
            while True:
                try:
                    await self.tick()
                except ControlError as error:
                    log.warning("usage could not be kept", reason=str(error))
                await asyncio.sleep(TICK)
        finally:
            for task in self._running.values():
                task.cancel()

    async def tick(self) -> None:
        """Does what is due now."""
        await self._usage.flush()
        await self._usage.recover()
        now = self._now()
        if now - self._pruned_at >= PRUNE_EVERY:
            self._pruned_at = now
            await self._usage.prune()
        async with self._database.read() as session:
            accounts = [account.id for account in (await session.exec(select(Account))).all() if has_usage(account)]
        self._schedule(accounts, now)
        for account_id in sorted(accounts, key=lambda account_id: self._due[account_id]):
            if len(self._running) >= AT_ONCE:
                break
            if account_id not in self._running and self._is_due(account_id, now):
                self._begin(account_id, now)

    def _schedule(self, accounts: list[str], now: float) -> None:
        self._due = {
            account_id: self._due.get(account_id, now + self._random.uniform(0, min(FIRST_WITHIN, self._interval)))
            for account_id in accounts
        }

    def _is_due(self, account_id: str, now: float) -> bool:
        return self._due[account_id] <= now or self._queries.take_soon(account_id, self._asked.get(account_id, 0.0))

    def _begin(self, account_id: str, now: float) -> None:
        self._asked[account_id] = now
        self._due[account_id] = now + self._interval * self._random.uniform(0.8, 1.2)
        task = asyncio.create_task(self._one(account_id), name=f"poll {account_id}")
        self._running[account_id] = task
        task.add_done_callback(lambda _: self._running.pop(account_id, None))

    async def _one(self, account_id: str) -> None:
        try:
            await self._queries.poll(account_id)
        except ControlError as error:
            log.info("usage was not asked for", account_id=account_id, reason=str(error))
