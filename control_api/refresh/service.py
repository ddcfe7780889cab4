"""Refreshes credentials: one flight for each (account, refresh token), whoever asks and however many.

Rules:
1. A flight is one task of this service, with a future of its own for every caller: a caller that is cancelled takes
   only its future along. What ends a flight is handed over as a value, also to callers that come during the hand-off.
2. The `token_refresh` seat is taken inside the flight, once, and given back before anything is stored.
3. Before the exchange an intent row is committed; what comes of the exchange is compared and set on the hash of the
   refresh token, in the transaction that removes the row. The row stays while nobody knows whether the token was used,
   whatever later attempts meet. A rotated token is kept in memory and retried until the database takes it.
4. A permanent failure counts only if the row still holds the token that failed: a newer one wins.
5. Nothing outlives the service: a new one starts without flights and without remembered failures.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from admission_client.errors import AdmissionError, Denied
from admission_client.lease import AccountKind, Admission
from admission_client.policy import AccountStatus
from control_api.accounts.codes import PERMANENT
from control_api.accounts.identity import Tokens, sign_in
from control_api.accounts.models import Account
from control_api.accounts.oauth import AuthServer
from control_api.accounts.service import AccountService
from control_api.accounts.status import StatusEvent
from control_api.changes import PolicyChanges
from control_api.database import Database
from control_api.errors import (
    AuthRefused,
    AuthServerTroubled,
    AuthUnreachable,
    Conflict,
    ControlError,
    DatabaseError,
    NotFound,
    RefreshDead,
    RefreshError,
    RefreshFailed,
    RefreshOverloaded,
)
from control_api.local_seats import UNDECIDED, LocalSeats
from control_api.metrics import Metrics
from control_api.refresh.models import RefreshIntent

log = structlog.get_logger(__name__)

STAGE = "stages/token_refresh"
FAILURE_REMEMBERED = 5.0
_SUCCESSES_REMEMBERED = 1_000
_CLOSE_WITHIN = 12.0
_RETRY_STORE_MAX = 5.0

Key = tuple[str, str]
"""Account id and SHA-256 of the refresh token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """The credential in force after a refresh."""

    account_id: str
    credential_version: int
    rotated: bool = False


E = TypeVar("E", bound=ControlError)
Outcome = Refreshed | RefreshError | NotFound | DatabaseError


@dataclass(slots=True)
class _Flight:
    task: "asyncio.Task[Outcome] | None" = None
    waiters: "set[asyncio.Future[Outcome]]" = field(default_factory=set)
    exchanging: bool = False
    interrupted: bool = False
    """Whether an earlier exchange of this very token has lost its answer."""


class RefreshService:
    """Refreshes credentials once for everybody."""

    def __init__(
        self,
        *,
        database: Database,
        accounts: AccountService,
        changes: PolicyChanges,
        auth_server: AuthServer,
        admission: Admission,
        local_seats: LocalSeats,
        metrics: Metrics,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._changes = changes
        self._auth_server = auth_server
        self._admission = admission
        self._local_seats = local_seats
        self._metrics = metrics
        self._now = now
        self._monotonic = monotonic
        self._flights: dict[Key, _Flight] = {}
        self._failures: dict[Key, tuple[RefreshError, float]] = {}
        self._successes: OrderedDict[Key, Refreshed] = OrderedDict()
        self._closed = False

    async def refresh(self, account_id: str, *, reason: str, rejected_version: int | None = None) -> Refreshed:
        """Exchanges the account's refresh token, or joins whoever is doing so.

        With `rejected_version` nothing is done when a newer credential is in force already. Raises `RefreshOverloaded`,
        `RefreshFailed`, `RefreshDead`, `Conflict` when the account has nothing to refresh, `NotFound`, `DatabaseError`.
        """
        async with self._database.read() as session:
            account = await self._accounts.load(session, account_id)
        if rejected_version is not None and account.credential_version > rejected_version:
            return _newer(account)
        return await self._refresh_row(account, reason)

    async def close(self) -> None:
        """Ends all flights. One that has sent a token away may finish first: its answer exists nowhere else."""
        self._closed = True
        for flight in self._flights.values():
            if flight.task is not None and not flight.exchanging:
                flight.task.cancel()
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_WITHIN)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._failures.clear()
        self._successes.clear()

    # --- Callers.

    async def _refresh_row(self, account: Account, reason: str) -> Refreshed:
        _check_refreshable(account)
        key = (account.id, account.refresh_token_sha256)
        done = self._successes.get(key)
        if done is not None and done.credential_version > account.credential_version:
            # Our look at the row is older than the rotation; or the account was deleted, and came back with this token.
            async with self._database.read() as session:
                account = await self._accounts.load(session, account.id)
            if account.refresh_token_sha256 != key[1]:
                return done if done.credential_version == account.credential_version else _newer(account)
            self._successes.pop(key, None)
            _check_refreshable(account)
        # No await from here to the flight: who arrives now either joins it or starts it.
        if (failure := self._remembered_failure(key)) is not None:
            raise _copy(failure)
        flight = self._flights.get(key) or self._start(key, self._accounts.refresh_token(account), reason)
        outcome = await self._join(flight)
        if isinstance(outcome, Refreshed):
            return outcome
        # A fresh copy for each caller: one exception raised in many tasks would collect all their tracebacks.
        raise _copy(outcome)

    async def _join(self, flight: _Flight) -> Outcome:
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        flight.waiters.add(waiter)
        try:
            return await waiter
        finally:
            flight.waiters.discard(waiter)

    def _remembered_failure(self, key: Key) -> RefreshError | None:
        failure, until = self._failures.get(key, (None, 0.0))
        if failure is not None and self._monotonic() >= until:
            del self._failures[key]
            return None
        return failure

    # --- The flight.

    def _start(self, key: Key, refresh_token: str, reason: str) -> _Flight:
        if self._closed:
            raise RefreshFailed("The refresh service is stopping.", code="stopping")
        flight = _Flight()
        self._flights[key] = flight
        flight.task = asyncio.create_task(self._fly(flight, key, refresh_token, reason), name=f"refresh {key[0]}")
        flight.task.add_done_callback(lambda task: self._land(flight, key, task))
        return flight

    def _land(self, flight: _Flight, key: Key, task: "asyncio.Task[Outcome]") -> None:
        del self._flights[key]
        if task.cancelled():
            outcome: Outcome = RefreshFailed("The refresh was stopped.", code="stopping")
        elif (error := task.exception()) is not None:
            log.error("a refresh ended unexpectedly", account_id=key[0], exc_info=error)
            outcome = RefreshFailed("The refresh ended unexpectedly.", code="internal")
        else:
            outcome = task.result()
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_result(outcome)

    async def _fly(self, flight: _Flight, key: Key, refresh_token: str, reason: str) -> Outcome:
        try:
            outcome: Outcome = await self._exchange_and_store(flight, key, refresh_token, reason)
        except (RefreshError, NotFound, DatabaseError) as error:
            outcome = error
        self._count(key[0], reason, outcome)
        return outcome

    async def _exchange_and_store(self, flight: _Flight, key: Key, refresh_token: str, reason: str) -> Refreshed:
        try:
            async with self._seat():
                newer = await self._begin(flight, key)
                if newer is not None:
                    return newer
                flight.exchanging = True
                with self._metrics.refresh_seconds.time():
                    tokens = await self._auth_server.refresh(refresh_token)
        except AuthUnreachable as error:
            if not (error.sent or flight.interrupted):
                await self._forget_intent(key)
            raise RefreshFailed(str(error), code=error.code, retry_after=error.retry_after) from None
        except AuthRefused as refused:
            return await self._refused(flight, key, refused)
        return await self._store(key, tokens, reason)

    @asynccontextmanager
    async def _seat(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as seat:
            try:
                await seat.enter_async_context(self._admission.acquire([STAGE], label="refresh"))
            except Denied as denied:
                if denied.denial.reason not in UNDECIDED:
                    raise RefreshOverloaded(
                        "As many refreshes as allowed are running.",
                        code="refresh_overloaded",
                        retry_after=max(1, round(denied.denial.retry_after or 1.0)),
                    ) from None
                self._take_local(seat)
            except AdmissionError:
                self._take_local(seat)
            yield

    def _take_local(self, seat: AsyncExitStack) -> None:
        if not self._local_seats.take():
            raise RefreshOverloaded(
                "As many refreshes as allowed are running.", code="refresh_overloaded", retry_after=1
            )
        seat.callback(self._local_seats.give_back)

    async def _begin(self, flight: _Flight, key: Key) -> Refreshed | None:
        account_id, fingerprint = key
        async with self._database.write() as session:
            account = await self._accounts.load(session, account_id, lock=True)
            if account.refresh_token_sha256 != fingerprint:
                return _newer(account)
            intent = await session.get(RefreshIntent, account_id)
            flight.interrupted = intent is not None and intent.refresh_token_sha256 == fingerprint
            intent = intent or RefreshIntent(account_id=account_id, refresh_token_sha256="", started_at=0.0)
            intent.refresh_token_sha256, intent.started_at = fingerprint, self._now()
            session.add(intent)
        return None

    async def _store(self, key: Key, tokens: Tokens, reason: str) -> Refreshed:
        delay = 0.05
        while True:
            try:
                stored = await self._try_store(key, tokens, reason)
            except DatabaseError as error:
                # The old token is used up and this one exists only here: losing it would lose the account.
                log.error("a rotated token waits for the database", account_id=key[0], reason=str(error))
                await asyncio.sleep(delay)
                delay = min(_RETRY_STORE_MAX, delay * 2)
                continue
            self._remember_success(key, stored)
            self._changes.mark()
            return stored

    async def _try_store(self, key: Key, tokens: Tokens, reason: str) -> Refreshed:
        account_id, fingerprint = key
        async with self._database.write() as session:
            account = await self._accounts.load(session, account_id, lock=True)
            if account.refresh_token_sha256 != fingerprint:
                log.info("a newer sign-in has won over a refresh", account_id=account_id)
                return _newer(account)
            signed_in = sign_in(tokens, account_id=account.upstream_account_id)
            await self._accounts.store_rotation(session, account, signed_in)
            await self._remove_intent(session, account_id)
            await self._accounts.note(session, account, "refreshed", reason)
            if AccountStatus.REAUTH_REQUIRED in (account.status, account.resume_to):
                await self._accounts.change(session, account, StatusEvent.CREDENTIAL_REVIVED, reason="")
        return Refreshed(account_id=account_id, credential_version=account.credential_version, rotated=True)

    async def _refused(self, flight: _Flight, key: Key, refused: AuthRefused) -> Refreshed:
        account_id, fingerprint = key
        event = PERMANENT.get(refused.code)
        async with self._database.write() as session:
            account = await self._accounts.load(session, account_id, lock=True)
            if account.refresh_token_sha256 != fingerprint:
                return _newer(account)
            if event is not None or not (flight.interrupted or _leaves_open(refused)):
                await self._remove_intent(session, account_id)
            if event is not None:
                lost = " (an earlier exchange was interrupted, and its answer lost)" if flight.interrupted else ""
                await self._accounts.change(session, account, event, reason=refused.code + lost)
        if event is None:
            kind = AuthServerTroubled if refused.is_trouble else RefreshFailed
            failure: RefreshError = kind(str(refused), code=refused.code, retry_after=refused.retry_after or 5)
        else:
            self._changes.mark()
            failure = RefreshDead(str(refused), code=refused.code)
        self._failures[key] = (failure, self._monotonic() + FAILURE_REMEMBERED)
        raise failure

    async def _forget_intent(self, key: Key) -> None:
        async with self._database.write() as session:
            await self._remove_intent(session, key[0])

    async def _remove_intent(self, session: AsyncSession, account_id: str) -> None:
        intent = await session.get(RefreshIntent, account_id)
        if intent is not None:
            await session.delete(intent)

    def _remember_success(self, key: Key, stored: Refreshed) -> None:
        self._successes[key] = stored
        while len(self._successes) > _SUCCESSES_REMEMBERED:
            self._successes.popitem(last=False)
        for older in [known for known in self._failures if known[0] == key[0]]:
            del self._failures[older]

    def _count(self, account_id: str, reason: str, outcome: Outcome) -> None:
        if isinstance(outcome, Refreshed):
            self._metrics.refreshes.labels("rotated" if outcome.rotated else "newer").inc()
            log.info("credential refreshed", account_id=account_id, reason=reason, version=outcome.credential_version)
            return
        self._metrics.refreshes.labels(type(outcome).__name__).inc()
        log.warning("credential not refreshed", account_id=account_id, reason=reason, code=outcome.code)


def _newer(account: Account) -> Refreshed:
    return Refreshed(account_id=account.id, credential_version=account.credential_version)


def _leaves_open(refused: AuthRefused) -> bool:
    # The auth server may have used the token up before it failed, or before it said what we cannot read.
    return refused.status >= HTTPStatus.INTERNAL_SERVER_ERROR or refused.code == "invalid_response"


def _check_refreshable(account: Account) -> None:
    if account.kind != AccountKind.CHATGPT or account.refresh_token is None:
        raise Conflict("This account has no token to refresh.", code="not_refreshable")
    if account.status == AccountStatus.DEACTIVATED:
        raise Conflict("The upstream has closed this account.", code="deactivated")


def _copy(error: E) -> E:
    return type(error)(str(error), retry_after=error.retry_after, field=error.field, code=error.code)
