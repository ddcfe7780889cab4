"""What is known of usage: told by queries and by traffic, shown to people, and what follows for the accounts.

Rules: numbers from traffic are kept in memory and written at most every five seconds an account; usage that clears a
limit must have been told after the limit began.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog
from sqlalchemy import delete as sql_delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from admission_client.lease import AccountKind, Credits
from admission_client.policy import AccountSignal, AccountStatus
from control_api.accounts.models import Account
from control_api.accounts.service import AccountService
from control_api.accounts.status import ROUTABLE, StatusEvent, room_again
from control_api.changes import PolicyChanges
from control_api.cumulative import add_told
from control_api.database import Database
from control_api.errors import ControlError, NotFound
from control_api.usage.capacity import remaining
from control_api.usage.models import UsageSample, UsageState, UsageView, UsageWindowRow, WindowView
from control_api.usage.served import PoolAccount
from control_api.usage.windows import UsageReport, UsageWindow

log = structlog.get_logger(__name__)

_COUNTS = ("succeeded", "failed", "input", "cached", "output")
WRITE_EVERY = 5.0
SAMPLE_EVERY = 300.0
HISTORY_KEPT = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTotals:
    """What was used: by a key since it was made, or of accounts since they are known."""

    requests: int
    tokens: int
    cached_input_tokens: int


@dataclass(frozen=True, slots=True)
class _Seen:
    signal: AccountSignal
    told_at: float


class UsageService:
    """What is known of usage, and how it becomes known."""

    def __init__(
        self,
        *,
        database: Database,
        accounts: AccountService,
        changes: PolicyChanges,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._changes = changes
        self._now = now
        self._seen: dict[str, _Seen] = {}
        self._written_at: dict[str, float] = {}

    async def close(self) -> None:
        """Writes what traffic told."""
        await self.flush(everything=True)

    async def store(self, account_id: str, report: UsageReport, *, told_at: float) -> None:
        """Stores what a query told, and ends the queries' cooldown."""
        async with self._database.write() as session:
            try:
                account = await self._accounts.load(session, account_id, lock=True)
            except NotFound:
                return
            if report.workspace_id and account.workspace_id and report.workspace_id != account.workspace_id:
                log.warning("usage of another workspace was ignored", account_id=account_id)
                return
            state = await state_of(session, account_id)
            state.cooldown_until, state.cooldown_reason = None, ""
            _note_plan(account, state, report.plan)
            session.add(account)
            if await self._store_windows(session, account, state, report, told_at) and report.windows:
                await self._forget_other_windows(session, account_id, report.windows)
        self._changes.mark()

    def observe(self, signal: AccountSignal) -> None:
        """Takes what traffic told; it is written by the next `flush` that is due."""
        now = self._now()
        earlier = self._seen.get(signal.account_id)
        if earlier is not None and not signal.windows and earlier.signal.windows:
            kept = earlier.signal
            signal = replace(signal, windows=kept.windows, credits=signal.credits or kept.credits)
            self._seen[signal.account_id] = _Seen(signal, earlier.told_at)
            return
        self._seen[signal.account_id] = _Seen(signal, now - signal.windows_age)

    async def flush(self, *, everything: bool = False) -> None:
        """Writes what traffic told, at most every five seconds an account."""
        now = self._now()
        for account_id in list(self._seen):
            if everything or now - self._written_at.get(account_id, 0.0) >= WRITE_EVERY:
                seen = self._seen.pop(account_id)
                try:
                    await self._write_seen(account_id, seen)
                except ControlError:
                    self._seen.setdefault(account_id, seen)
                    raise
                self._written_at[account_id] = now

    async def recover(self) -> None:
        """Puts limited accounts back whose time is over."""
        now = self._now()
        limited = (AccountStatus.RATE_LIMITED.value, AccountStatus.QUOTA_EXCEEDED.value)
        query = select(Account.id).where(col(Account.status).in_(limited), col(Account.reset_at) <= now)
        async with self._database.read() as session:
            due = (await session.exec(query)).all()
        for account_id in due:
            async with self._database.write() as session:
                try:
                    account = await self._accounts.load(session, account_id, lock=True)
                except NotFound:  # deleted since we looked
                    continue
                if account.reset_at is not None and account.reset_at <= now:
                    await self._accounts.change(session, account, StatusEvent.ROOM_AGAIN, reason="its time is over")
            self._changes.mark()

    async def prune(self) -> None:
        """Removes history that is too old for any chart."""
        async with self._database.write() as session:
            old = col(UsageSample.recorded_at) < self._now() - HISTORY_KEPT
            await session.exec(sql_delete(UsageSample).where(old))

    async def page(self, *, after_id: str, limit: int) -> tuple[Sequence[UsageView], str | None]:
        """Returns what is known of each account's usage, and the id to go on after."""
        query = select(Account).where(col(Account.id) > after_id).order_by(col(Account.id)).limit(limit + 1)
        async with self._database.read() as session:
            accounts = (await session.exec(query)).all()
            last = accounts[limit - 1].id if len(accounts) > limit else None
            accounts = accounts[:limit]
            return await self._views(session, accounts), last

    async def view(self, account_id: str) -> UsageView:
        """Returns what is known of one account's usage. Raises `NotFound`."""
        async with self._database.read() as session:
            return (await self._views(session, [await self._accounts.load(session, account_id)]))[0]

    async def samples(
        self, account_id: str, *, before: int | None, limit: int
    ) -> tuple[Sequence[UsageSample], int | None]:
        """Returns an account's history of usage, newest first, and the sample to go on before. Raises `NotFound`."""
        query = select(UsageSample).where(UsageSample.account_id == account_id)
        if before is not None:
            query = query.where(col(UsageSample.id) < before)
        async with self._database.read() as session:
            await self._accounts.load(session, account_id)
            found = (await session.exec(query.order_by(col(UsageSample.id).desc()).limit(limit + 1))).all()
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def pool(self, account_ids: Collection[str] | None) -> tuple[Sequence[PoolAccount], UsageTotals]:
        """Returns the accounts that may serve a client, all of them or those named, and what they have served."""
        async with self._database.read() as session:
            accounts = (await session.exec(select(Account))).all()
            if account_ids is not None:
                accounts = [account for account in accounts if account.id in account_ids]
            states = {state.account_id: state for state in (await session.exec(select(UsageState))).all()}
            windows = windows_by_account((await session.exec(select(UsageWindowRow))).all())
        pool = [
            _pool_account(account, states.get(account.id), windows.get(account.id, []), self._now())
            for account in accounts
            if has_usage(account)
        ]
        return pool, _totals([states[account.id] for account in accounts if account.id in states])

    async def weights(self) -> Mapping[str, float]:
        """Returns what is left of each account's quota, in one unit for all."""
        async with self._database.read() as session:
            accounts = (await session.exec(select(Account))).all()
            windows = windows_by_account((await session.exec(select(UsageWindowRow))).all())
        now = self._now()
        return {account.id: remaining(account.plan, windows.get(account.id, []), now=now) for account in accounts}

    async def _views(self, session: AsyncSession, accounts: Sequence[Account]) -> list[UsageView]:
        ids = [account.id for account in accounts]
        states = (await session.exec(select(UsageState).where(col(UsageState.account_id).in_(ids)))).all()
        rows = (await session.exec(select(UsageWindowRow).where(col(UsageWindowRow.account_id).in_(ids)))).all()
        by_id = {state.account_id: state for state in states}
        now = self._now()
        return [
            _view(account, by_id.get(account.id), [row for row in rows if row.account_id == account.id], now)
            for account in accounts
        ]

    async def _write_seen(self, account_id: str, seen: _Seen) -> None:
        signal = seen.signal
        windows = tuple(
            UsageWindow(
                length=round(window.length),
                used_percent=window.used_percent,
                resets_at=None if window.resets_after is None else self._now() + window.resets_after,
            )
            for window in signal.windows
        )
        async with self._database.write() as session:
            try:
                account = await self._accounts.load(session, account_id, lock=True)
            except NotFound:
                return
            state = await state_of(session, account_id)
            add_told(state, signal, counts=_COUNTS)
            session.add(state)
            report = UsageReport(windows=windows, credits=signal.credits)
            if windows or signal.credits:
                await self._store_windows(session, account, state, report, seen.told_at)
        if windows:
            self._changes.mark()

    async def _store_windows(
        self, session: AsyncSession, account: Account, state: UsageState, report: UsageReport, told_at: float
    ) -> bool:
        """Stores windows and credits unless newer ones are stored; returns whether it did."""
        if state.told_at is not None and told_at < state.told_at:
            return False
        state.told_at = told_at
        if report.credits is not None:
            _store_credits(state, report.credits)
        session.add(state)
        await session.flush()
        for window in report.windows:
            row = await session.get(UsageWindowRow, (account.id, window.length))
            if row is None:
                row = UsageWindowRow(account_id=account.id, length=window.length, used_percent=0.0, told_at=0.0)
            row.used_percent, row.resets_at, row.told_at = window.used_percent, window.resets_at, told_at
            session.add(row)
            await self._sample(session, account.id, window)
        await self._maybe_room(session, account, state, report.windows, told_at)
        return True

    async def _forget_other_windows(self, session: AsyncSession, account_id: str, told: Sequence[UsageWindow]) -> None:
        # A query tells every window there is, so another length belongs to an earlier plan and would weigh for ever.
        # Traffic may tell one window alone, and proves nothing about the others.
        await session.exec(
            sql_delete(UsageWindowRow).where(
                col(UsageWindowRow.account_id) == account_id,
                col(UsageWindowRow.length).not_in([window.length for window in told]),
            )
        )

    async def _sample(self, session: AsyncSession, account_id: str, window: UsageWindow) -> None:
        latest = (
            select(UsageSample)
            .where(UsageSample.account_id == account_id, UsageSample.length == window.length)
            .order_by(col(UsageSample.id).desc())
            .limit(1)
        )
        last = (await session.exec(latest)).first()
        now = self._now()
        if last is None or now - last.recorded_at >= SAMPLE_EVERY:
            session.add(
                UsageSample(
                    account_id=account_id, length=window.length, used_percent=window.used_percent, recorded_at=now
                )
            )

    async def _maybe_room(
        self,
        session: AsyncSession,
        account: Account,
        state: UsageState,
        windows: Sequence[UsageWindow],
        told_at: float,
    ) -> None:
        used = max((window.used_percent for window in windows), default=None)
        has_credits = state.has_credits or state.unlimited_credits
        if room_again(account.standing, now=self._now(), used_percent=used, told_at=told_at, has_credits=has_credits):
            await self._accounts.change(session, account, StatusEvent.ROOM_AGAIN, reason="usage shows room")


def windows_by_account(rows: Sequence[UsageWindowRow]) -> dict[str, list[UsageWindow]]:
    """Returns the windows of each account."""
    found: dict[str, list[UsageWindow]] = {}
    for row in rows:
        found.setdefault(row.account_id, []).append(
            UsageWindow(length=row.length, used_percent=row.used_percent, resets_at=row.resets_at)
        )
    return found


def has_usage(account: Account) -> bool:
    """Returns whether there is usage to ask for: a `chatgpt` account that serves, or will by itself."""
    return account.kind == AccountKind.CHATGPT and AccountStatus(account.status) in ROUTABLE


def _view(account: Account, state: UsageState | None, rows: Sequence[UsageWindowRow], now: float) -> UsageView:
    state = state or UsageState(account_id=account.id)
    windows = windows_by_account(rows).get(account.id, [])
    return UsageView(
        account_id=account.id,
        plan=account.plan,
        windows=[WindowView.model_validate(row) for row in sorted(rows, key=lambda row: row.length)],
        told_at=state.told_at,
        has_credits=state.has_credits,
        unlimited_credits=state.unlimited_credits,
        credit_balance=state.credit_balance,
        cooldown_until=state.cooldown_until,
        cooldown_reason=state.cooldown_reason,
        remaining=remaining(account.plan, windows, now=now),
        succeeded=state.succeeded,
        failed=state.failed,
        input_tokens=state.input_tokens,
        cached_input_tokens=state.cached_input_tokens,
        output_tokens=state.output_tokens,
    )


def _pool_account(
    account: Account, state: UsageState | None, windows: Sequence[UsageWindow], now: float
) -> PoolAccount:
    cooling = account.cooldown_until is not None and account.cooldown_until > now
    return PoolAccount(
        plan=account.plan,
        windows=tuple(windows),
        blocked=account.status != AccountStatus.ACTIVE or cooling,
        has_credits=state is not None and state.has_credits,
        unlimited_credits=state is not None and state.unlimited_credits,
    )


def _totals(states: Sequence[UsageState]) -> UsageTotals:
    return UsageTotals(
        requests=sum(state.succeeded + state.failed for state in states),
        tokens=sum(state.input_tokens + state.output_tokens for state in states),
        cached_input_tokens=sum(state.cached_input_tokens for state in states),
    )


async def state_of(session: AsyncSession, account_id: str) -> UsageState:
    """Returns what is known of an account besides its windows, within a transaction."""
    state = await session.get(UsageState, account_id)
    if state is None:
        state = UsageState(account_id=account_id)
        session.add(state)
        await session.flush()
    return state


def _note_plan(account: Account, state: UsageState, plan: str) -> None:
    if not plan or plan == account.plan:
        state.pending_plan = ""
    elif plan == "free" and account.plan not in {"", "unknown"} and state.pending_plan != plan:
        # The upstream answers "free" now and then for paid seats: a downgrade counts when it is told twice in a row.
        state.pending_plan = plan
    else:
        account.plan, state.pending_plan = plan[:64], ""


def _store_credits(state: UsageState, told: Credits) -> None:
    state.has_credits = told.has_credits
    state.unlimited_credits = told.unlimited
    state.credit_balance = told.balance[:64]
