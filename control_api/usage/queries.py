"""Asks upstreams for usage.

Rules: one query an account at a time, on a task of this service, whoever asks and whoever leaves; a refusal keeps the
account's queries away for 300 s, also over a restart, unless a newer credential has come, and a manual query ignores
that; a refused credential is refreshed once, and the query repeated once.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import httpx
import structlog

from admission_client.lease import AccountKind
from control_api.accounts.models import Account
from control_api.accounts.rejection import AUTH_COOLDOWN, GiveUp, RefreshIt, meaning_of_rejection
from control_api.accounts.service import AccountService
from control_api.answers import whole_answer
from control_api.changes import PolicyChanges
from control_api.database import Database
from control_api.errors import Conflict, ControlError
from control_api.metrics import Metrics
from control_api.usage.models import UsageState
from control_api.usage.service import UsageService, has_usage, state_of
from control_api.usage.verdict import Failure, FailureVerdict, judge_failure
from control_api.usage.windows import read_usage

log = structlog.get_logger(__name__)

QUERY_TIMEOUT = 10.0
SOON_DEBOUNCE = 15.0
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_RETRY_DELAYS = (0.5, 2.0)
_SAME_404 = 60.0


class Refresher(Protocol):
    """Who refreshes a rejected credential: `RefreshService.refresh`."""

    async def __call__(self, account_id: str, *, reason: str, rejected_version: int) -> object:
        """Returns when a newer credential is in force. Raises a `ControlError` when there is none."""


class UsageQueries:
    """Queries of usage, by schedule or by hand."""

    def __init__(
        self,
        *,
        database: Database,
        accounts: AccountService,
        usage: UsageService,
        changes: PolicyChanges,
        client: httpx.AsyncClient,
        refresher: Refresher,
        metrics: Metrics,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._usage = usage
        self._changes = changes
        self._client = client
        self._refresher = refresher
        self._metrics = metrics
        self._now = now
        self._queries: dict[str, asyncio.Task[str]] = {}
        self._not_found: dict[str, float] = {}
        self._soon: dict[str, float] = {}

    async def poll(self, account_id: str, *, manual: bool = False) -> str:
        """Asks one account's upstream and stores the answer, or joins the query under way. Returns how it went.

        Raises `NotFound`, and for a manual query `Conflict` when the account has no usage to ask for.
        """
        task = self._queries.get(account_id)
        if task is None:
            account, state = await self._read(account_id)
            refused = _refuses(account, state, self._now(), manual=manual)
            if refused and manual:
                raise Conflict(refused, code="no_usage")
            if refused:
                return "skipped"
            task = self._queries.get(account_id) or self._start(account)
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def hand_over(done: "asyncio.Task[str]") -> None:
            if not outcome.done():
                outcome.set_result("stopped" if done.cancelled() else done.result())

        # A callback for each caller in place of a shield: a caller that leaves takes nothing along.
        task.add_done_callback(hand_over)
        try:
            return await outcome
        finally:
            task.remove_done_callback(hand_over)

    def ask_soon(self, account_id: str) -> None:
        """Asks for a query ahead of schedule, after traffic met a limit; at most one in 15 s."""
        if self._now() - self._soon.get(account_id, 0.0) >= SOON_DEBOUNCE:
            self._soon[account_id] = self._now()

    def take_soon(self, account_id: str, since: float) -> bool:
        """Returns whether a query ahead of schedule was asked for since the last one."""
        return self._soon.get(account_id, 0.0) > since

    async def close(self) -> None:
        """Ends all queries."""
        for task in self._queries.values():
            task.cancel()
        await asyncio.gather(*self._queries.values(), return_exceptions=True)

    def _start(self, account: Account) -> "asyncio.Task[str]":
        task = asyncio.create_task(self._query(account), name=f"usage {account.id}")
        self._queries[account.id] = task
        task.add_done_callback(lambda _: self._queries.pop(account.id, None))
        return task

    async def _query(self, account: Account) -> str:
        try:
            outcome = await self._ask(account)
        except (ControlError, httpx.HTTPError) as error:
            log.info("usage query failed", account_id=account.id, error=type(error).__name__, reason=str(error))
            outcome = "failed"
        except Exception:
            log.exception("usage query ended unexpectedly", account_id=account.id)
            outcome = "failed"
        self._metrics.usage_polls.labels(outcome).inc()
        return outcome

    async def _ask(self, account: Account) -> str:
        response = await self._get(account)
        if response.status_code == 401:
            verdict = self._verdict(account, response)
            if verdict.failure is Failure.CREDENTIAL_REFUSED:
                if isinstance(meaning_of_rejection(account, code=verdict.code, at=self._now()), GiveUp):
                    return await self._failed(account, verdict)
                renewed = await self._renewed(account, verdict)
                if renewed is None:
                    return await self._cool_down(account, verdict)
                account, response = renewed, await self._get(renewed)
        if response.is_success:
            report = read_usage(_json(response), now=self._now())
            if report is None:
                return "unreadable"
            await self._usage.store(account.id, report, told_at=self._now())
            return "stored"
        return await self._failed(account, self._verdict(account, response))

    async def _get(self, account: Account) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._accounts.access_token(account)}", "accept": "application/json"}
        if account.upstream_account_id:
            headers["chatgpt-account-id"] = account.upstream_account_id
        url = f"{account.base_url}/wham/usage"
        for delay in _RETRY_DELAYS:
            response = await whole_answer(self._client, "GET", url, within=QUERY_TIMEOUT, headers=headers)
            if response.status_code not in _RETRIED:
                return response
            await asyncio.sleep(delay)
        return await whole_answer(self._client, "GET", url, within=QUERY_TIMEOUT, headers=headers)

    async def _renewed(self, account: Account, verdict: FailureVerdict) -> Account | None:
        """Returns the account with a newer credential; None when there is none to be had."""
        meaning = meaning_of_rejection(account, code=verdict.code, at=self._now())
        if not isinstance(meaning, RefreshIt):
            return None
        try:
            await self._refresher(account.id, reason="usage query refused", rejected_version=account.credential_version)
            renewed = await self._accounts.get(account.id)
        except ControlError:
            return None
        return renewed if renewed.credential_version > account.credential_version else None

    async def _failed(self, account: Account, verdict: FailureVerdict) -> str:
        if verdict.failure is Failure.NOTHING:
            return "transient"
        if verdict.event is not None:
            async with self._database.write() as session:
                row = await self._accounts.load(session, account.id, lock=True)
                if row.credential_version != account.credential_version:
                    return "outdated"
                await self._accounts.change(session, row, verdict.event, reason=f"{verdict.code} (usage query)")
            self._changes.mark()
            return "given_up"
        if verdict.failure is Failure.MISCONFIGURED:
            log.error(
                "usage query met 404: the upstream's base URL is probably wrong",
                account_id=account.id,
                base_url=account.base_url,
            )
        return await self._cool_down(account, verdict)

    async def _cool_down(self, account: Account, verdict: FailureVerdict) -> str:
        async with self._database.write() as session:
            row = await self._accounts.load(session, account.id)
            state = await state_of(session, account.id)
            state.cooldown_until = self._now() + AUTH_COOLDOWN
            state.cooldown_reason = verdict.code
            session.add(state)
            await self._accounts.note(session, row, "usage_refused", verdict.code)
        return "cooling_down"

    def _verdict(self, account: Account, response: httpx.Response) -> FailureVerdict:
        now = self._now()
        others = [at for other, at in self._not_found.items() if other != account.id]
        if response.status_code == 404:
            self._not_found[account.id] = now
        return judge_failure(
            response.status_code,
            _json(response),
            another_404_lately=any(now - at <= _SAME_404 for at in others),
        )

    async def _read(self, account_id: str) -> tuple[Account, UsageState | None]:
        async with self._database.read() as session:
            account = await self._accounts.load(session, account_id)
            return account, await session.get(UsageState, account_id)


def _refuses(account: Account, state: UsageState | None, now: float, *, manual: bool) -> str:
    if account.kind != AccountKind.CHATGPT:
        return "Accounts of kind api_key have no usage to ask for."
    if not has_usage(account):
        return f"The account is {account.status}."
    if not manual and state is not None and _cools_down(account, state, now):
        return "Its queries are cooling down."
    return ""


def _cools_down(account: Account, state: UsageState, now: float) -> bool:
    # What was said of a credential says nothing of one that came after it.
    until = state.cooldown_until
    return until is not None and until > now and account.credential_obtained_at <= until - AUTH_COOLDOWN


def _json(response: httpx.Response) -> object:
    try:
        return response.json()
    except ValueError:
        return None
