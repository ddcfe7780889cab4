"""Sign-in through the auth server: by browser (PKCE) or by device code; with a target, a re-authentication.

A flow lives in the database, so it is known after a restart, and ends by itself after its time. The callback listener
runs only while a browser flow is pending. What a flow ends with is an account, or a sentence that says why not.
A flow is finished by one task of this service, whoever calls back and however often: a code can be redeemed once, and
tokens that were redeemed exist nowhere else, so they are kept and retried until the database takes them.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import structlog
from sqlalchemy import delete as sql_delete
from sqlalchemy import tuple_
from sqlmodel import col, select

from control_api.accounts.callback import CALLBACK_PATH, CallbackListener, callback_values
from control_api.accounts.identity import Tokens, sign_in
from control_api.accounts.models import LoginFlow
from control_api.accounts.oauth import AuthServer, PkcePair
from control_api.accounts.service import AccountService
from control_api.database import Database
from control_api.errors import (
    AuthServerError,
    AuthUnreachable,
    Conflict,
    ControlError,
    DatabaseBusy,
    DatabaseError,
    InputRefused,
    NotFound,
)
from control_api.vault import Vault

log = structlog.get_logger(__name__)

Method = Literal["browser", "device"]
PENDING, DONE, FAILED, EXPIRED, CANCELLED = "pending", "done", "failed", "expired", "cancelled"
BROWSER_LIFE = 900.0
ENDED_KEPT = 16
SWEEP_EVERY = 1.0
FINISH_WITHIN = 30.0
"""How long who calls back waits for a login to be finished, in seconds; it is finished all the same."""
_CLOSE_WITHIN = 5.0
_RETRY_STORE_MAX = 5.0
_NEWEST_FIRST = (col(LoginFlow.created_at).desc(), col(LoginFlow.id).desc())

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedLogin:
    """A flow and what the operator must do."""

    flow: LoginFlow
    authorize_url: str | None = None
    callback_url: str | None = None
    verification_url: str | None = None


class LoginService:
    """Starts flows and finishes them."""

    def __init__(
        self,
        *,
        database: Database,
        accounts: AccountService,
        vault: Vault,
        auth_server: AuthServer,
        callback_port: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._vault = vault
        self._auth_server = auth_server
        self._now = now
        self._listener = CallbackListener(callback_port, self._on_callback)
        self._devices: dict[str, asyncio.Task[None]] = {}
        self._finishing: dict[str, asyncio.Task[LoginFlow]] = {}

    # --- What operators do.

    async def start(self, method: Method, *, account_id: str | None = None) -> StartedLogin:
        """Starts a flow. Raises `NotFound` for an unknown target, `AuthServerError` when the auth server fails."""
        if account_id is not None:
            await self._accounts.get(account_id)
        if method == "device":
            return await self._start_device(account_id)
        return await self._start_browser(account_id)

    async def get(self, flow_id: str) -> LoginFlow:
        """Returns a flow. Raises `NotFound`."""
        async with self._database.read() as session:
            flow = await session.get(LoginFlow, flow_id)
        if flow is None:
            raise NotFound("There is no such login.")
        return flow

    async def page(
        self, *, before: tuple[float, str] | None, limit: int
    ) -> tuple[Sequence[LoginFlow], tuple[float, str] | None]:
        """Returns flows that are pending or have ended lately, newest first, and the place to go on before: the time of
        its start and the id of a flow.
        """
        query = select(LoginFlow).order_by(*_NEWEST_FIRST).limit(limit + 1)
        if before is not None:
            query = query.where(tuple_(col(LoginFlow.created_at), col(LoginFlow.id)) < before)
        async with self._database.read() as session:
            found = (await session.exec(query)).all()
        last = found[limit - 1] if len(found) > limit else None
        return found[:limit], (last.created_at, last.id) if last is not None else None

    async def complete(self, flow_id: str, callback_url: str) -> LoginFlow:
        """Finishes a browser flow with the URL that the browser ended at. Raises `InputRefused`, `Conflict`."""
        flow = await self.get(flow_id)
        if flow.method != "browser" or flow.status != PENDING:
            raise Conflict(f"This login is {flow.status}.", code="not_pending")
        try:
            query = urlsplit(callback_url).query
        except ValueError:
            raise InputRefused("This is not a URL.", field="callback_url") from None
        code, state, error = callback_values(query)
        if not secrets.compare_digest(state.encode(), flow.state.encode()):
            raise InputRefused("This URL belongs to another login.", field="callback_url")
        if not code and not error:
            raise InputRefused("The URL has no code.", field="callback_url")
        return await self._finish(flow, partial(self._redeem, flow, code, error))

    async def cancel(self, flow_id: str) -> LoginFlow:
        """Ends a pending flow; one that has ended stays as it is."""
        flow = await self.get(flow_id)
        if flow.status == PENDING:
            flow = await self._end(flow_id, CANCELLED)
        if task := self._devices.pop(flow_id, None):
            task.cancel()
        return flow

    # --- What happens by itself.

    async def run(self) -> None:
        """Expires flows, keeps the listener only as long as needed, goes on polling for devices; until cancelled."""
        try:
            while True:
                with contextlib.suppress(ControlError):
                    await self.sweep()
                await asyncio.sleep(SWEEP_EVERY)
        finally:
            for task in self._devices.values():
                task.cancel()
            await asyncio.gather(*self._devices.values(), return_exceptions=True)
            await self._listener.stop()
            await self._end_finishing()

    async def sweep(self) -> None:
        """Ends flows whose time is over, and forgets old ones."""
        now = self._now()
        flows = await self._all()
        for flow in flows:
            if flow.status == PENDING and flow.expires_at <= now and flow.id not in self._finishing:
                await self._end(flow.id, EXPIRED, "Nobody signed in in time.")
        pending = [flow for flow in flows if flow.status == PENDING and flow.expires_at > now]
        for flow in pending:
            if flow.method == "device" and flow.id not in self._devices and flow.id not in self._finishing:
                self._poll(flow)
        if any(flow.method == "browser" for flow in pending):
            await self._listener.start()
        else:
            await self._listener.stop()
        ended = [flow.id for flow in flows if flow.status != PENDING]
        if len(ended) > ENDED_KEPT:
            async with self._database.write() as session:
                await session.exec(sql_delete(LoginFlow).where(col(LoginFlow.id).in_(ended[ENDED_KEPT:])))

    @property
    def callback_port(self) -> int:
        """The port that the listener uses."""
        return self._listener.port

    async def _all(self) -> Sequence[LoginFlow]:
        async with self._database.read() as session:
            return (await session.exec(select(LoginFlow).order_by(*_NEWEST_FIRST))).all()

    async def _start_browser(self, account_id: str | None) -> StartedLogin:
        pkce = PkcePair.make()
        listening = await self._listener.start()
        flow = await self._store(
            "browser", account_id, secret=pkce.verifier, state=secrets.token_urlsafe(24), lasts=BROWSER_LIFE
        )
        log.info("login started", flow_id=flow.id, method="browser", listening=listening)
        return self._described(flow, challenge=pkce.challenge)

    async def _start_device(self, account_id: str | None) -> StartedLogin:
        device = await self._auth_server.begin_device(now=self._now())
        flow = await self._store(
            "device",
            account_id,
            secret=device.device_auth_id,
            user_code=device.user_code,
            interval=device.interval,
            lasts=device.lasts,
        )
        self._poll(flow)
        log.info("login started", flow_id=flow.id, method="device")
        return StartedLogin(flow=flow, verification_url=self._auth_server.device_page)

    def _described(self, flow: LoginFlow, *, challenge: str) -> StartedLogin:
        return StartedLogin(
            flow=flow,
            authorize_url=self._auth_server.authorize_url(
                state=flow.state, challenge=challenge, redirect_uri=self._redirect_uri
            ),
            callback_url=self._redirect_uri,
        )

    @property
    def _redirect_uri(self) -> str:
        return f"http://localhost:{self._listener.port}{CALLBACK_PATH}"

    async def _store(
        self,
        method: Method,
        account_id: str | None,
        *,
        secret: str,
        lasts: float,
        state: str = "",
        user_code: str = "",
        interval: float = 5.0,
    ) -> LoginFlow:
        now = self._now()
        flow = LoginFlow(
            id=f"login_{secrets.token_hex(8)}",
            method=method,
            status=PENDING,
            target_account_id=account_id,
            state=state,
            secret=self._vault.encrypt(secret),
            user_code=user_code,
            interval=interval,
            created_at=now,
            expires_at=now + lasts,
        )
        async with self._database.write() as session:
            session.add(flow)
        return flow

    async def _on_callback(self, query: str) -> str:
        code, state, error = callback_values(query)
        try:
            flow = next((flow for flow in await self._all() if flow.state and flow.state == state), None)
            if flow is None or flow.status != PENDING:
                return "No login is waiting for this. Start it again."
            flow = await self._finish(flow, partial(self._redeem, flow, code, error))
        except ControlError as failure:
            return f"That failed: {failure}"
        return "You are signed in. You may close this page." if flow.status == DONE else f"That failed: {flow.error}"

    # --- Finishing.

    async def _finish(self, flow: LoginFlow, work: Callable[[], Coroutine[Any, Any, LoginFlow]]) -> LoginFlow:
        """Finishes a flow, or joins whoever is doing so. Raises `DatabaseBusy` when that takes too long."""
        task = self._finishing.get(flow.id)
        if task is None:
            task = asyncio.create_task(work(), name=f"finish login {flow.id}")
            self._finishing[flow.id] = task
            task.add_done_callback(lambda done: self._finished(flow.id, done))
        # Waited for and not awaited: a caller that leaves must not take the task along.
        done, _ = await asyncio.wait({task}, timeout=FINISH_WITHIN)
        if not done:
            raise DatabaseBusy("The login is not finished yet; look at it again in a while.", retry_after=5)
        return task.result()

    def _finished(self, flow_id: str, task: "asyncio.Task[LoginFlow]") -> None:
        del self._finishing[flow_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a login could not be finished", flow_id=flow_id, error=type(error).__name__)

    async def _end_finishing(self) -> None:
        tasks = list(self._finishing.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_WITHIN)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _redeem(self, flow: LoginFlow, code: str, error: str) -> LoginFlow:
        if error:
            return await self._end(flow.id, FAILED, f"The auth server said: {error[:200]}")
        try:
            tokens = await self._auth_server.redeem(code, verifier=self._secret(flow), redirect_uri=self._redirect_uri)
        except AuthServerError as failure:
            return await self._end(flow.id, FAILED, str(failure))
        return await self._accept(flow, tokens)

    def _poll(self, flow: LoginFlow) -> None:
        task = asyncio.create_task(self._poll_device(flow), name=f"device login {flow.id}")
        self._devices[flow.id] = task
        task.add_done_callback(lambda _: self._devices.pop(flow.id, None))

    async def _poll_device(self, flow: LoginFlow) -> None:
        while self._now() < flow.expires_at:
            await asyncio.sleep(flow.interval)
            try:
                tokens = await self._auth_server.poll_device(self._secret(flow), flow.user_code)
            except AuthUnreachable as error:
                log.info("the auth server did not answer a device login", flow_id=flow.id, reason=str(error))
                continue
            except AuthServerError as error:
                await _until_stored(flow.id, partial(self._end, flow.id, FAILED, str(error)))
                return
            if tokens is not None:
                with contextlib.suppress(DatabaseBusy):  # finished all the same, only later
                    await self._finish(flow, partial(self._accept, flow, tokens))
                return

    async def _accept(self, flow: LoginFlow, tokens: Tokens) -> LoginFlow:
        now = await _until_stored(flow.id, partial(self.get, flow.id))
        if now.status != PENDING:
            return now
        try:
            described = sign_in(tokens)
            accepted = await _until_stored(
                flow.id,
                lambda: self._accounts.accept(described, target_account_id=flow.target_account_id, source="signed_in"),
            )
        except ControlError as error:
            return await _until_stored(flow.id, partial(self._end, flow.id, FAILED, str(error)))
        return await _until_stored(flow.id, partial(self._end, flow.id, DONE, account_id=accepted.account.id))

    async def _end(self, flow_id: str, status: str, error: str = "", *, account_id: str | None = None) -> LoginFlow:
        async with self._database.write() as session:
            flow = await session.get(LoginFlow, flow_id, with_for_update=True)
            if flow is None:
                raise NotFound("There is no such login.")
            if flow.status == PENDING:
                flow.status, flow.error, flow.account_id, flow.secret = status, error, account_id, None
                session.add(flow)
                log.info("login ended", flow_id=flow_id, status=flow.status, reason=error)
        return flow

    def _secret(self, flow: LoginFlow) -> str:
        return self._vault.decrypt(flow.secret) if flow.secret else ""


async def _until_stored(flow_id: str, work: Callable[[], Awaitable[T]]) -> T:
    """Does something in the database, and again until the database takes it."""
    delay = 0.05
    while True:
        try:
            return await work()
        except DatabaseError as error:
            log.error("a login waits for the database", flow_id=flow_id, reason=str(error))
            await asyncio.sleep(delay)
            delay = min(_RETRY_STORE_MAX, delay * 2)
