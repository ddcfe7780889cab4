"""A line: the turns of one `stream_id` on a client's socket, one after another, and the upstream socket they share.

Work is asked for at the head of the line only. A turn that goes on from a response of this upstream socket stays on
it; any other turn may move to another account, and then the old upstream socket is closed first. Until its first
visible event a turn can be replayed elsewhere without its client noticing; afterwards it ends with `response.failed`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from admission_client.errors import AdmissionError, AdmissionUnavailable, Denied
from admission_client.lease import AccountKind, AccountNeeds, Admission, DenialReason, Grant, GrantedAccount
from edge_proxy.access import AccessLog, AccessRecord
from edge_proxy.answers import answered, note_end
from edge_proxy.attempts import Attempts, RetryBudget, TryFailed
from edge_proxy.auth import Client
from edge_proxy.body import ByteBudget
from edge_proxy.client_socket import ClientSocket
from edge_proxy.drain import Drain
from edge_proxy.errors import (
    BodyMalformed,
    ClientGone,
    EdgeError,
    UpstreamAnswered,
    UpstreamFailed,
    UpstreamTrouble,
    refusal_of,
)
from edge_proxy.frames import (
    ClientFrame,
    addressed,
    backend_frame,
    for_another_owner,
    http_body,
    mended_error,
    needs_mending,
    presentable,
)
from edge_proxy.headers import TURN_STATE, upstream_headers
from edge_proxy.interruption import Interruption
from edge_proxy.metrics import EdgeMetrics
from edge_proxy.outcome import Action, judge_answer, judge_event, judge_trouble
from edge_proxy.reports import AccountReporter
from edge_proxy.routes import Dialect, Route
from edge_proxy.settings import EdgeSettings
from edge_proxy.sse import type_of
from edge_proxy.turn import (
    ACCOUNT_RESPONSE_CREATES,
    RESPONSE_CREATE,
    UPSTREAM_WEBSOCKET_CONNECT,
    TurnRequest,
    TurnWatch,
    failure_event,
    turn_resources,
)
from edge_proxy.upstream import Upstream
from edge_proxy.upstream_socket import (
    FrameSource,
    HandshakeRefused,
    StreamedFrames,
    UpstreamSocket,
    connect_upstream,
)

log = structlog.get_logger(__name__)

_CONNECTION_OVER = "websocket_connection_limit_reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineParts:
    """What every line of every socket works with."""

    settings: EdgeSettings
    admission: Admission
    upstream: Upstream
    retries: RetryBudget
    budget: ByteBudget
    metrics: EdgeMetrics
    access: AccessLog
    drain: Drain
    clock: Callable[[], float]


@dataclass(slots=True)
class _Turn:
    """A turn that waits, or runs."""

    frame: ClientFrame
    request: TurnRequest
    record: AccessRecord
    size: int
    watch: TurnWatch = field(default_factory=TurnWatch)
    told: bool = False
    """Whether the client has been sent something of it."""


@dataclass(frozen=True, slots=True)
class _Try:
    """One try of a turn, with an account and its seats."""

    turn: _Turn
    grant: Grant
    account: GrantedAccount
    reporter: AccountReporter


class _SocketWasStale(Exception):
    """An upstream socket that had served before turned out to be closed when the next turn was sent."""


class Line:
    """One line of one socket."""

    def __init__(
        self,
        parts: LineParts,
        client: ClientSocket,
        owner: Client,
        route: Route,
        stream_id: str,
        *,
        on_quiet: Callable[[], None],
    ) -> None:
        self.stream_id = stream_id
        self._parts = parts
        self._client = client
        self._owner = owner
        self._route = route
        self._on_quiet = on_quiet
        self._waiting: deque[_Turn] = deque()
        self._arrived = asyncio.Event()
        self._running: _Turn | None = None
        self._held_frames: deque[str] = deque()
        self._upstream: UpstreamSocket | None = None
        self._without_sockets: set[str] = set()
        """Accounts whose upstream answered 426: they are spoken to over HTTP."""

    # --- What the socket asks of it.

    @property
    def busy(self) -> bool:
        """Whether a turn runs or waits."""
        return self._running is not None or bool(self._waiting)

    @property
    def waiting(self) -> int:
        """How many turns wait behind the one that runs."""
        return len(self._waiting)

    def enqueue(self, frame: ClientFrame, request: TurnRequest, record: AccessRecord) -> None:
        """Adds a turn at the end. Raises `BodyBudgetExhausted`."""
        size = len(frame.text)
        self._parts.budget.take(size)
        self._waiting.append(_Turn(frame, request, record, size))
        self._arrived.set()

    def pass_on(self, text: str) -> bool:
        """Sends a frame that is no turn upstream, or keeps it for the turn that is about to be sent.

        Never waits: whoever reads from the client must go on. Returns false when there is nobody to send to. Raises
        `BodyMalformed` when the upstream does not take what it was sent.
        """
        if self._upstream is not None and self._upstream.open:
            if not self._upstream.post(text):
                raise BodyMalformed("Too many frames wait for the upstream to take them.")
            return True
        if self._running is not None and len(self._held_frames) < self._parts.settings.turns_per_line:
            self._held_frames.append(text)
            return True
        return False

    async def run(self) -> None:
        """Serves turns until cancelled."""
        try:
            while True:
                turn = await self._next_turn()
                try:
                    await self._serve(turn)
                finally:
                    self._forget_frame(turn)
                    self._running = None
                    self._held_frames.clear()
                    self._on_quiet()
        finally:
            await self._close_upstream()

    def abandon(self) -> None:
        """Forgets the turns that wait. For the end of the socket, also when the line has never run."""
        while self._waiting:
            self._forget_frame(self._waiting.popleft())

    def _forget_frame(self, turn: _Turn) -> None:
        self._parts.budget.give_back(turn.size)
        turn.size = 0

    # --- Between turns: upstream frames still reach the client, and a close is noticed.

    async def _next_turn(self) -> _Turn:
        listening = asyncio.create_task(self._listen(self._upstream)) if self._upstream is not None else None
        try:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
        self._running = self._waiting.popleft()
        return self._running

    async def _listen(self, upstream: UpstreamSocket) -> None:
        try:
            while True:
                frame = await upstream.frame(within=None)
                if frame:
                    await self._client.send(addressed(presentable(frame), self.stream_id))
        except (UpstreamFailed, ClientGone):
            return

    # --- A turn, from the head of the line to its end.

    async def _serve(self, turn: _Turn) -> None:
        record = turn.record
        try:
            async with Interruption() as interruption:
                with self._parts.drain.running(interruption.interrupt):
                    await self._attempt_until_done(turn)
        except (ClientGone, asyncio.CancelledError):  # a line is cancelled when its client's socket has ended
            record.outcome = record.outcome or "client_gone"
            raise
        except (EdgeError, AdmissionError) as error:
            await self._tell_failure(turn, error)
        except Exception as error:
            log.exception("turn failed", request_id=record.request_id)
            await self._tell_failure(turn, error)
        finally:
            self._parts.access.close(record)

    async def _attempt_until_done(self, turn: _Turn) -> None:
        needs = turn.request.needs(turn.frame.addresses(self._client.request.headers), kind=self._route.kind)
        attempts = Attempts(needs, self._parts.retries)
        while True:
            try:
                await self._attempt(turn, attempts)
            except _SocketWasStale:
                continue
            except (TryFailed, Denied) as failure:
                if error := attempts.verdict_on(failure):
                    raise error from failure
                self._parts.metrics.retries.labels(attempts.why).inc()
                turn.watch = TurnWatch()
            else:
                return

    async def _attempt(self, turn: _Turn, attempts: Attempts) -> None:
        """Asks for the account of the open socket first, and for any account when that has no room at once."""
        upstream = self._upstream
        if upstream is not None and not upstream.open:
            await self._close_upstream()
            upstream = None
        if upstream is None or attempts.retrying:
            await self._try(turn, attempts.needs, max_wait=attempts.max_wait, suspect=attempts.suspect)
            return
        stay = replace(attempts.needs, required_account_id=upstream.account.account_id, required_owner_key="")
        if upstream.made(turn.request.previous_response_id):
            await self._try(turn, stay, connect=False)
            return
        if turn.request.previous_response_id:  # made elsewhere: its owner decides
            await self._try(turn, attempts.needs)
            return
        try:
            await self._try(turn, stay, max_wait=0.0, connect=False)
        except Denied as denied:
            if denied.denial.reason in _ABOUT_THE_CLIENT:
                raise
            await self._try(turn, attempts.needs)

    async def _try(
        self,
        turn: _Turn,
        needs: AccountNeeds,
        *,
        max_wait: float | None = None,
        connect: bool = True,
        suspect: bool = False,
    ) -> None:
        parts, record = self._parts, turn.record
        resources = turn_resources(turn.request.stage, with_key=self._owner.key_sha256 is not None)
        began = parts.clock()
        async with parts.admission.acquire(
            (UPSTREAM_WEBSOCKET_CONNECT, *resources) if connect else resources,
            key_sha256=self._owner.key_sha256,
            peer=self._owner.peer,
            account=needs,
            max_wait=max_wait,
            label=record.request_id[:64],
        ) as grant:
            record.admission_wait += parts.clock() - began
            account = grant.account
            if account is None or not grant.live:
                raise AdmissionUnavailable("the admission session has lapsed")
            record.account_id = account.account_id
            record.attempts += 1
            reporter = AccountReporter(parts.admission, account, self._owner, turn.watch, suspect=suspect)
            await self._settled(_Try(turn, grant, account, reporter))

    async def _settled(self, this: _Try) -> None:
        """Does the try, and sees to it that it is reported and that nothing goes on upstream after it."""
        try:
            await self._with_upstream(this)
        except UpstreamFailed as error:
            verdict = judge_trouble(error.trouble)
            this.reporter.settle(verdict)
            await self._drop_upstream()
            if not this.turn.watch.visible:
                raise TryFailed(verdict, this.account, error) from error
            raise
        except BaseException:
            await self._drop_upstream()
            raise
        finally:
            this.reporter.settle_neutrally()

    async def _with_upstream(self, this: _Try) -> None:
        account = this.account
        if self._upstream is not None and self._upstream.account.account_id != account.account_id:
            await self._close_upstream()
        if account.account_id in self._without_sockets:
            await self._over_http(this)
            return
        if self._upstream is None:
            if UPSTREAM_WEBSOCKET_CONNECT not in this.grant.resources:
                raise _SocketWasStale
            try:
                self._upstream = await self._connect(this)
            except HandshakeRefused as refused:
                if refused.status != 426:
                    raise self._refused(this, refused) from refused
                self._without_sockets.add(account.account_id)
                await self._over_http(this)
                return
            this.reporter.headers = self._upstream.headers
            await self._tell_turn_state(self._upstream)
        this.grant.release(UPSTREAM_WEBSOCKET_CONNECT)
        await self._over_socket(this, self._upstream)

    async def _connect(self, this: _Try) -> UpstreamSocket:
        began = self._parts.clock()
        headers = self._headers(this)
        url = f"{this.account.base_url}{self._route.target(this.account.kind)}"
        upstream = await connect_upstream(url, headers, this.account, self._parts.settings)
        this.turn.record.upstream_head = self._parts.clock() - began
        return upstream

    def _headers(self, this: _Try, accept: str = "") -> list[tuple[str, str]]:
        return upstream_headers(
            self._client.request.raw_headers,
            this.account,
            request_id=this.turn.record.request_id,
            accept=accept,
            responses_lite=this.turn.request.responses_lite,
            forward_simulate=self._parts.settings.forward_simulate,
        )

    async def _tell_turn_state(self, upstream: UpstreamSocket) -> None:
        # Codex reads a turn state from such a frame, not from the handshake; others need not understand it.
        turn_state = upstream.headers.get(TURN_STATE)
        if turn_state and self._client.request.is_codex:
            await self._client.tell({"type": "response.metadata", "headers": {TURN_STATE: turn_state}}, self.stream_id)

    async def _over_socket(self, this: _Try, upstream: UpstreamSocket) -> None:
        watch, frame = this.turn.watch, this.turn.frame
        if this.account.owner_moved:
            frame = for_another_owner(frame)
        upstream.turns += 1
        try:
            text = backend_frame(frame.document) if self._is_normalised(this) else frame.text
            await self._send(this, upstream, text)
            while self._held_frames:
                await self._send(this, upstream, self._held_frames.popleft())
            await self._forward(this, upstream)
        except UpstreamFailed as error:
            if error.trouble is UpstreamTrouble.CUT and upstream.turns > 1 and watch.events == 0:
                raise _SocketWasStale from error
            raise
        if watch.response_id and not watch.failed:
            upstream.remember(watch.response_id)

    async def _over_http(self, this: _Try) -> None:
        turn, account = this.turn, this.account
        this.grant.release(UPSTREAM_WEBSOCKET_CONNECT)
        if turn.request.warm_up:  # the client then sends its whole turn, which needs no warm-up
            raise UpstreamAnswered(426, b"", code="upstream_websocket_unavailable", message="No warm-up over HTTP.")
        body = http_body(turn.frame.document, normalised=self._is_normalised(this))
        headers = self._headers(this, accept="text/event-stream")
        url = f"{account.base_url}{self._route.target(account.kind)}"
        async with self._parts.upstream.send(
            "POST", url, headers, body, private=account.private_upstream, patience=self._client.patience
        ) as response:
            this.reporter.headers = response.headers
            if response.status != 200:
                content = await response.body(within=self._parts.settings.headers_timeout)
                raise self._refused(this, HandshakeRefused(response.status, response.headers, content))
            await self._forward(this, StreamedFrames(response))

    def _is_normalised(self, this: _Try) -> bool:
        return self._route.dialect is Dialect.OPENAI and this.account.kind is AccountKind.CHATGPT

    @staticmethod
    def _refused(this: _Try, refused: HandshakeRefused) -> TryFailed:
        verdict = judge_answer(refused.status, refused.headers, refused.body)
        this.reporter.headers = refused.headers
        this.reporter.settle(verdict)
        error: EdgeError = UpstreamFailed(UpstreamTrouble.UNREACHABLE, str(refused))
        if refused.status >= 400 and (refused.status != 404 or verdict.code):
            error = UpstreamAnswered(
                refused.status,
                refused.body,
                code=verdict.code,
                message=verdict.message,
                retry_after=verdict.resets_after,
            )
        return TryFailed(verdict, this.account, error)

    async def _send(self, this: _Try, upstream: UpstreamSocket, text: str) -> None:
        """Sends a frame. Its client hears from us meanwhile: a large one takes its time on a slow line."""
        sending = asyncio.create_task(upstream.send(text))
        try:
            while not (await asyncio.wait([sending], timeout=self._parts.settings.keepalive_interval))[0]:
                await self._keep_alive(this.turn)
            await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    # --- Its events, one by one.

    async def _forward(self, this: _Try, source: FrameSource) -> None:
        settings, watch = self._parts.settings, this.turn.watch
        began = silent_since = self._parts.clock()
        while not watch.terminal:
            frame = await source.frame(within=settings.keepalive_interval)
            now = self._parts.clock()
            if now - began >= settings.stream_timeout:
                raise UpstreamFailed(UpstreamTrouble.TOO_LATE, "The response took longer than a response may take.")
            if frame is None:
                if now - silent_since >= settings.silence_timeout:
                    raise UpstreamFailed(UpstreamTrouble.SILENT, "The upstream has been silent for too long.")
                await self._keep_alive(this.turn)
                continue
            silent_since = now
            await self._take(this, frame)

    async def _take(self, this: _Try, frame: bytes) -> None:
        turn, watch = this.turn, this.turn.watch
        created = watch.created
        watch.observe(type_of(frame), frame)
        if watch.failed:
            frame = self._surfaced(this, frame)
        if watch.created and not created:
            this.grant.release(RESPONSE_CREATE, ACCOUNT_RESPONSE_CREATES)
            self._forget_frame(turn)
        if watch.terminal:
            note_end(turn.record, this.reporter, watch)
        if turn.record.first_byte is None:
            turn.record.first_byte = self._parts.access.since(turn.record)
        turn.told = turn.told or watch.visible
        turn.record.bytes_out += len(frame)
        await self._client.send(addressed(frame, self.stream_id))

    def _surfaced(self, this: _Try, frame: bytes) -> bytes:
        """Returns a failure as the client will read it. Raises `TryFailed` when another account may do better."""
        watch = this.turn.watch
        verdict = judge_event(watch.failure)
        if not watch.seen_before_failure:
            aged = verdict.code == _CONNECTION_OVER and self._upstream is not None and self._upstream.turns > 1
            if aged and not this.turn.request.previous_response_id:
                this.turn.watch = TurnWatch()
                raise _SocketWasStale
            if verdict.action is not Action.SURFACE:
                this.reporter.settle(verdict)
                raise TryFailed(verdict, this.account, answered(verdict, watch.failure))
        if watch.terminal == "error" and needs_mending(watch.failure):
            return mended_error(watch.failure)
        return frame

    async def _keep_alive(self, turn: _Turn) -> None:
        document: Mapping[str, Any]
        if turn.watch.response_id:
            response = {"id": turn.watch.response_id, "status": "in_progress"}
            document = {"type": "response.in_progress", "response": response}
        elif self._client.request.is_codex:
            document = {
                "type": "codex.keepalive",
                "request_id": turn.record.request_id,
                "status": "pending_response_created",
            }
        else:
            return
        self._parts.metrics.keepalives.inc()
        await self._client.tell(document, self.stream_id)

    async def _tell_failure(self, turn: _Turn, error: Exception) -> None:
        record = turn.record
        refusal = refusal_of(error, lane=record.lane, user_agent=self._client.request.user_agent)
        record.status, record.code = refusal.status, refusal.code
        record.outcome = "upstream_error" if refusal.reason == "upstream" else "refused"
        self._parts.metrics.refusals_of(refusal.lane, refusal.reason).inc()
        if turn.told:
            record.outcome = "repaired"
            self._parts.metrics.repaired_streams.inc()
            event = failure_event(refusal.error, response_id=turn.watch.response_id)
            await self._client.send(addressed(event, self.stream_id))
        else:
            await self._client.tell(refusal.frame(), self.stream_id)

    async def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            await upstream.drop()

    async def _close_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            await upstream.close()


_ABOUT_THE_CLIENT = frozenset({DenialReason.KEY_UNKNOWN, DenialReason.KEY_EXPIRED, DenialReason.MODEL_NOT_ALLOWED})
