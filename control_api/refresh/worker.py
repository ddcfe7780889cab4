"""Refreshes credentials that are due: before they expire, when they are old, at once after a rejection, and when an
exchange of theirs was interrupted, so that nobody finds out later that the token was lost.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
from sqlmodel import select

from control_api.accounts.models import Account
from control_api.database import Database
from control_api.errors import (
    AuthServerTroubled,
    Conflict,
    ControlError,
    DatabaseError,
    NotFound,
    RefreshError,
    RefreshFailed,
    RefreshOverloaded,
)
from control_api.refresh.models import RefreshIntent
from control_api.refresh.schedule import is_due
from control_api.refresh.service import RefreshService

log = structlog.get_logger(__name__)
LOOK_EVERY = 5.0
BACKOFF_FIRST = 2.0
BACKOFF_MAX = 3_600.0
BACKOFF_MAX_OUTSIDE = 60.0
"""For trouble that says nothing about the account: it may be over at any moment, and the token expires meanwhile."""


@dataclass(frozen=True, slots=True)
class _Backoff:
    """Holds for one token, and ends when that is rejected meanwhile."""

    fingerprint: str
    rejected_version: int
    tries: int
    until: float

    def concerns(self, account: Account) -> bool:
        return self.fingerprint == account.refresh_token_sha256 and self.rejected_version == account.rejected_version


class RefreshWorker:
    """Looks for due credentials, every few seconds and whenever it is woken."""

    def __init__(
        self,
        *,
        database: Database,
        refresh: RefreshService,
        now: Callable[[], float] = time.time,
        source: random.Random | None = None,
    ) -> None:
        self._database = database
        self._refresh = refresh
        self._now = now
        self._random = source or random.Random()  # noqa: S311 (jitter, not secrets)
        self._woken = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._backoff: dict[str, _Backoff] = {}

    def wake(self) -> None:
        """Makes the worker look now: a credential was rejected."""
        self._woken.set()

    async def run(self) -> None:
        """Works until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except DatabaseError as error:
                    log.warning("due credentials could not be read", reason=str(error))
                try:
                    async with asyncio.timeout(LOOK_EVERY):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                self._woken.clear()
        finally:
            for task in self._running.values():
                task.cancel()

    async def look(self) -> None:
        """Starts a refresh of every credential that is due."""
        # One look at both tables: with its intent an account is seen at the version that the exchange began with, and
        # nothing is exchanged again when a newer one is in force by then.
        async with self._database.read() as session:
            accounts = (await session.exec(select(Account))).all()
            intents = (await session.exec(select(RefreshIntent))).all()
        interrupted = {(intent.account_id, intent.refresh_token_sha256) for intent in intents}
        now = self._now()
        for account in accounts:
            if account.id in self._running or self._waits(account, now):
                continue
            if (account.id, account.refresh_token_sha256) in interrupted:  # else it was of an older token
                self._begin(account, "an earlier exchange was interrupted")
            elif is_due(account, now):
                rejected = account.rejected_version == account.credential_version
                self._begin(account, "rejected" if rejected else "due")

    def _begin(self, account: Account, reason: str) -> None:
        task = asyncio.create_task(self._one(account, reason), name=f"due {account.id}")
        self._running[account.id] = task
        task.add_done_callback(partial(self._ended, account.id))

    async def _one(self, account: Account, reason: str) -> None:
        try:
            await self._refresh.refresh(account.id, reason=reason, rejected_version=account.credential_version)
        except (RefreshError, Conflict, NotFound, DatabaseError) as error:
            self._back_off(account, error)  # the service has logged why
        else:
            self._backoff.pop(account.id, None)

    def _ended(self, account_id: str, _task: "asyncio.Task[None]") -> None:
        self._running.pop(account_id, None)

    def _waits(self, account: Account, now: float) -> bool:
        backoff = self._backoff.get(account.id)
        return backoff is not None and backoff.concerns(account) and now < backoff.until

    def _back_off(self, account: Account, error: ControlError) -> None:
        before = self._backoff.get(account.id)
        tries = before.tries + 1 if before is not None and before.concerns(account) else 1
        longest = BACKOFF_MAX_OUTSIDE if _is_outside(error) else BACKOFF_MAX
        delay = min(longest, BACKOFF_FIRST * 2.0 ** min(tries - 1, 12)) * self._random.uniform(0.8, 1.2)
        delay = max(delay, error.retry_after or 0)
        self._backoff[account.id] = _Backoff(
            account.refresh_token_sha256, account.rejected_version, tries, self._now() + delay
        )


def _is_outside(error: ControlError) -> bool:
    if isinstance(error, RefreshOverloaded | DatabaseError | AuthServerTroubled):
        return True
    return isinstance(error, RefreshFailed) and error.code == "auth_unreachable"
