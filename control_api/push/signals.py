"""Turns what edges saw of accounts into changes here: status, rejected credentials, cooldowns, usage.

A signal is state: the same event comes again with every later signal of its account, and once more after a restart. An
event counts once, by its time; one that happened before the account's last change of status or credential is history.
"""

import time
from collections.abc import Callable, Sequence

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from admission_client.lease import Outcome
from admission_client.policy import AccountSignal
from admission_client.policy import StatusEvent as SeenEvent
from control_api.accounts.models import Account
from control_api.accounts.rejection import AUTH_COOLDOWN, CoolDown, GiveUp, meaning_of_rejection
from control_api.accounts.service import AccountService
from control_api.accounts.status import StatusEvent
from control_api.changes import PolicyChanges
from control_api.database import Database
from control_api.errors import NotFound
from control_api.metrics import Metrics
from control_api.usage.service import UsageService

log = structlog.get_logger(__name__)
SAME_EVENT = 1.0
"""Ages travel with some delay: two readings of one event differ by less than this, in seconds. Another event may well
happen within it."""


class SignalReceiver:
    """Stores signals; the admission server is told that they are stored when `receive` returns."""

    def __init__(
        self,
        *,
        database: Database,
        accounts: AccountService,
        usage: UsageService,
        changes: PolicyChanges,
        wake_refresh: Callable[[], None],
        ask_usage: Callable[[str], None],
        metrics: Metrics,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._usage = usage
        self._changes = changes
        self._wake_refresh = wake_refresh
        self._ask_usage = ask_usage
        self._metrics = metrics
        self._now = now

    async def receive(self, signals: Sequence[AccountSignal]) -> None:
        """Applies the latest signal of each of some accounts. Raises `DatabaseError`; then they come again."""
        for signal in signals:
            self._usage.observe(signal)
            if signal.status_event is not None:
                await self._apply(signal.account_id, signal.status_event)
            self._metrics.signals.inc()

    async def _apply(self, account_id: str, seen: SeenEvent) -> None:
        at = self._now() - seen.age
        async with self._database.write() as session:
            try:
                account = await self._accounts.load(session, account_id, lock=True)
            except NotFound:
                return
            now = self._now()
            if account.signalled_at is not None and not _is_news(account, seen, at, now):
                return
            account.signalled_at, account.signalled_event = at, _name_of(seen)
            session.add(account)
            changed = at >= _past(account.status_changed_at, now) and await self._judge(session, account, seen, at)
            refresh_wanted = account.rejected_version == account.credential_version
        if changed:
            self._changes.mark()
        if refresh_wanted:
            self._wake_refresh()  # after the commit: whoever looks earlier sees nothing to do

    async def _judge(self, session: AsyncSession, account: Account, seen: SeenEvent, at: float) -> bool:
        reason = _reason(seen)
        reset_at = None if seen.resets_after is None else self._now() + seen.resets_after
        match seen.outcome:
            case Outcome.AUTH_REJECTED:
                return await self._rejected(session, account, seen, at)
            case Outcome.RATE_LIMITED if reset_at is not None or seen.code:
                return await self._accounts.change(
                    session, account, StatusEvent.RATE_LIMITED, reason=reason, reset_at=reset_at
                )
            case Outcome.QUOTA_EXCEEDED:
                self._ask_usage(account.id)
                return await self._accounts.change(
                    session, account, StatusEvent.QUOTA_EXCEEDED, reason=reason, reset_at=reset_at
                )
            case Outcome.ACCOUNT_DISABLED:
                return await self._accounts.change(session, account, StatusEvent.ACCOUNT_DISABLED, reason=reason)
            case Outcome.MISCONFIGURED:
                log.error("an account's upstream is configured wrongly", account_id=account.id, reason=reason)
                await self._accounts.cool_down(session, account, seconds=AUTH_COOLDOWN, reason=reason)
                return True
        # A 429 without code or time is a refused burst: the admission server lets the account rest for seconds, and
        # by the time this is stored it serves again. Transient errors likewise.
        return False

    async def _rejected(self, session: AsyncSession, account: Account, seen: SeenEvent, at: float) -> bool:
        if seen.credential_version != account.credential_version:
            return False
        await self._accounts.note(session, account, "credential_rejected", _reason(seen))
        meaning = meaning_of_rejection(account, code=seen.code, at=at)
        if isinstance(meaning, GiveUp):
            return await self._accounts.change(session, account, meaning.event, reason=seen.code)
        if isinstance(meaning, CoolDown):
            await self._accounts.cool_down(session, account, seconds=meaning.seconds, reason=_reason(seen))
            if seen.refresh_wanted:
                # By the admission server's clock the ten minutes were over, by ours not quite. It gives the version to
                # nobody until there is a newer one: there must be one some day.
                account.rejected_version = seen.credential_version
            return True
        account.rejected_version = seen.credential_version
        return False


def _past(moment: float | None, now: float) -> float:
    # A time that is still to come was stored before the clock was set back: it makes nothing history.
    return 0.0 if moment is None or moment > now else moment


def _is_news(account: Account, seen: SeenEvent, at: float, now: float) -> bool:
    last = _past(account.signalled_at, now)
    return at > last + SAME_EVENT or (at > last - SAME_EVENT and account.signalled_event != _name_of(seen))


def _name_of(seen: SeenEvent) -> str:
    return f"{seen.outcome.value} {seen.credential_version} {seen.status} {seen.code}"[:200]


def _reason(seen: SeenEvent) -> str:
    return f"{seen.code or seen.outcome.value} ({seen.status})" if seen.status else seen.code or seen.outcome.value
