"""`SyncClient`: keeps the admission server's policy equal to the one it was last given, and brings signals up.

Only states travel. `update` names the whole policy that is wanted; what is sent is the difference to what the server
has, or all of it on a new stream. One change is under way at a time, so a burst of updates becomes one delta. While the
server is away only the latest wanted policy is kept.
"""

import asyncio
import contextlib
import enum
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import grpc
import grpc.aio
import structlog
from admission.v1 import control_service_pb2 as pb
from admission.v1.control_service_pb2_grpc import ControlServiceStub

from admission_client import policy_wire
from admission_client.errors import AdmissionError, AdmissionUnavailable, PolicyRefused, TermRefused, UnknownSession
from admission_client.policy import AccountSignal, KeySignal, Policy
from admission_client.rpc import (
    EndedCall,
    RpcStatus,
    ended_with,
    failed_with,
    open_channel,
    reconnect_delay,
    role_metadata,
)

log = structlog.get_logger(__name__)


class Stream(EndedCall, Protocol):
    """What is used of a `Sync` call."""

    async def read(self) -> object:
        """Returns the next message of the server, anything else at the end."""

    async def write(self, request: pb.SyncRequest, /) -> None:
        """Sends a message."""


OpenStream = Callable[[], AbstractAsyncContextManager[Stream]]


class SyncStatus(enum.StrEnum):
    """How the stream to the admission server is."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    TERM_REFUSED = "term_refused"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiter:
    revision: int
    applied: "asyncio.Future[int]"


class SyncClient:
    """The controller's end of `Sync`. Use it as a block; it connects in the background and reconnects for ever.

    Args:
        target: Address of the admission server.
        token: Role token of the role `control`.
        instance: Name for the server's logs.
        term: Grows with each take-over of the control API.
        on_signals: Is awaited with what edges saw of accounts, the latest of each account; they are acknowledged when
            it returns, and come again when it raises.
        on_key_signals: The same for what API keys have used; None: nobody wants to know.
        credentials: TLS; None for plaintext.
        clock: Monotonic seconds, the clock that policies' points in time are read from.
        source: Random numbers for the jitter of reconnects.
        call_timeout: Deadline of a single exchange with the server.
        open_stream: Opens a stream that ends with its block; None for gRPC.
    """

    def __init__(
        self,
        target: str,
        token: str,
        instance: str,
        term: int,
        *,
        on_signals: Callable[[Sequence[AccountSignal]], Awaitable[None]],
        on_key_signals: Callable[[Sequence[KeySignal]], Awaitable[None]] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        clock: Callable[[], float] = time.monotonic,
        source: random.Random | None = None,
        call_timeout: float = 5.0,
        open_stream: OpenStream | None = None,
    ) -> None:
        self._target = target
        self._metadata = role_metadata(token)
        self._instance = instance
        self._term = term
        self._on_signals = on_signals
        self._on_key_signals = on_key_signals or _ignore
        self._credentials = credentials
        self._clock = clock
        self._random = source or random.Random()  # noqa: S311 (jitter, not secrets)
        self._call_timeout = call_timeout
        self._open_stream = open_stream or self._open_grpc_stream
        self._life: asyncio.Task[None] | None = None
        self._ended: AdmissionError | None = None
        self._status = SyncStatus.CONNECTING
        self._epoch = 0
        # the policy: wanted by the caller, accepted by a server once, in force at the server we are connected to
        self._wanted: Policy | None = None
        self._revision = 0
        self._tried_revision = 0
        self._accepted: Policy | None = None
        self._in_force: Policy | None = None
        self._version = 0
        self._applied_version = 0
        self._waiters: list[_Waiter] = []
        self._wanted_changed = asyncio.Event()
        self._verdict: asyncio.Future[pb.SyncResponse] | None = None
        # signals that wait for `on_signals` and `on_key_signals`
        self._signals: dict[str, AccountSignal] = {}
        self._key_signals: dict[str, KeySignal] = {}
        self._signals_came = asyncio.Event()
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._life = asyncio.create_task(self._live(), name="admission sync")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(SyncStatus.CLOSED, AdmissionUnavailable("the sync client is closed"))
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)

    @property
    def status(self) -> SyncStatus:
        """How the stream is."""
        return self._status

    @property
    def connected(self) -> bool:
        """Whether the server has welcomed the stream there is now."""
        return self._status is SyncStatus.CONNECTED

    @property
    def epoch(self) -> int:
        """The incarnation of the server as last heard; 0 before that."""
        return self._epoch

    @property
    def applied_version(self) -> int:
        """The version of our policy that is in force at the server we are connected to; 0 when there is none."""
        return self._applied_version

    async def update(self, policy: Policy, *, timeout: float = 5.0) -> int:
        """Makes `policy` the wanted one, and returns the version under which it is in force.

        Raises `PolicyRefused` when the server refuses it; the last accepted one is wanted again then. Raises
        `AdmissionUnavailable` when it is not in force within `timeout` seconds; it stays wanted, and the server will be
        told as soon as it is back. Raises `TermRefused` once a newer controller has taken over.
        """
        if self._ended is not None:
            raise self._ended
        if policy == self._in_force and policy == self._wanted:
            return self._applied_version
        self._wanted = policy
        self._revision += 1
        waiter = _Waiter(revision=self._revision, applied=asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._wanted_changed.set()
        try:
            async with asyncio.timeout(timeout):
                return await waiter.applied
        except TimeoutError:
            raise AdmissionUnavailable("the admission server has not applied the policy yet") from None
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def forget_session(self, session_id: str) -> int:
        """Ends a session of which an operator knows that its holder is gone. Returns how many leases ended with it.

        Raises `UnknownSession`, or `AdmissionUnavailable` when the server could not be asked.
        """
        channel = open_channel(self._target, self._credentials)
        try:
            response: pb.ForgetSessionResponse = await ControlServiceStub(channel).ForgetSession(
                pb.ForgetSessionRequest(session_id=session_id), metadata=self._metadata, timeout=self._call_timeout
            )
        except grpc.aio.AioRpcError as error:
            status = failed_with(error)
            if status.code is grpc.StatusCode.NOT_FOUND:
                raise UnknownSession(status.message) from None
            raise AdmissionUnavailable(str(status)) from None
        finally:
            await channel.close(None)
        return response.ended

    # --- One stream after another.

    async def _live(self) -> None:
        attempt = 0
        while self._ended is None:
            began = self._clock()
            try:
                await self._open_and_follow()
            except Exception:
                # A bug on this road must not end the road: no change would ever be in force again.
                log.exception("admission sync failed", target=self._target)
            finally:
                self._in_force = None
                self._applied_version = 0
                if self._ended is None:
                    self._status = SyncStatus.CONNECTING
            attempt = 0 if self._clock() - began > 1.0 else attempt + 1
            if self._ended is None:
                await asyncio.sleep(reconnect_delay(self._random, attempt))

    async def _open_and_follow(self) -> None:
        async with self._open_stream() as stream:
            try:
                async with asyncio.timeout(self._call_timeout):
                    hello = pb.ControllerHello(instance=self._instance, term=self._term)
                    await stream.write(pb.SyncRequest(hello=hello))
                    welcomed = await self._receive(stream)
                if welcomed:
                    log.info("admission sync connected", target=self._target, epoch=self._epoch)
                    await self._follow(stream)
                self._note_end(await ended_with(stream))
            except TimeoutError:
                log.warning("admission server is silent", target=self._target)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                self._note_end(await ended_with(stream))

    @contextlib.asynccontextmanager
    async def _open_grpc_stream(self) -> AsyncIterator[Stream]:
        channel = open_channel(self._target, self._credentials)
        stream = ControlServiceStub(channel).Sync(metadata=self._metadata)
        try:
            yield stream
        finally:
            stream.cancel()
            await channel.close(None)

    async def _follow(self, stream: Stream) -> None:
        """Reads, pushes and delivers until one of the three ends; then the stream is over."""
        self._status = SyncStatus.CONNECTED
        self._wanted_changed.set()
        tasks = [
            asyncio.create_task(self._read(stream)),
            asyncio.create_task(self._push(stream)),
            asyncio.create_task(self._deliver(stream)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, stream: Stream) -> None:
        # No deadline: the server speaks when it has something to say. Keepalive pings end the stream of a dead server.
        while await self._receive(stream):
            pass

    async def _receive(self, stream: Stream) -> bool:
        message = await stream.read()
        if not isinstance(message, pb.SyncResponse):  # grpc.aio.EOF
            return False
        if message.HasField("welcome"):
            self._epoch = message.welcome.epoch
            self._version = max(self._version, message.welcome.policy_version)
            # What was not acknowledged comes again, and of another epoch it means nothing.
            self._signals.clear()
            self._key_signals.clear()
        decided = message.HasField("applied") or message.HasField("rejected")
        if decided and self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(message)
        for signal in message.signals:
            self._signals[signal.account_id] = policy_wire.account_signal(signal, epoch=self._epoch)
        for counts in message.key_signals:
            self._key_signals[counts.key_id] = policy_wire.key_signal(counts, epoch=self._epoch)
        if message.signals or message.key_signals:
            self._signals_came.set()
        return True

    async def _push(self, stream: Stream) -> None:
        """Sends what is wanted and is not in force, one change at a time."""
        self._in_force = None
        self._tried_revision = 0
        while True:
            await self._wanted_changed.wait()
            self._wanted_changed.clear()
            while self._wanted is not None and self._tried_revision != self._revision:
                await self._push_once(stream, self._wanted, self._revision)

    async def _push_once(self, stream: Stream, policy: Policy, revision: int) -> None:
        base = self._in_force
        try:
            message = self._change_to(policy)
        except Exception as error:  # a negative limit, say, has no place in the message: whatever it is, it stays so
            self._tried_revision = revision
            self._refused(policy, revision, PolicyRefused(f"cannot be said: {error}"))
            return
        self._verdict = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(self._call_timeout):
            await self._write(stream, message)
            verdict = await self._verdict
        if verdict.HasField("applied"):
            self._tried_revision = revision
            self._in_force = self._accepted = policy
            self._applied_version = verdict.applied.version
            self._settle(revision, None)
        elif base is not None and not verdict.rejected.field:
            self._in_force = None  # the server has another base: the same again, as a snapshot
        else:
            self._tried_revision = revision
            self._refused(policy, revision, PolicyRefused(verdict.rejected.message, field=verdict.rejected.field))

    def _change_to(self, policy: Policy) -> pb.SyncRequest:
        now = self._clock()
        self._version += 1
        if self._in_force is None:
            return policy_wire.snapshot(policy, version=self._version, now=now)
        return policy_wire.delta(
            self._in_force, policy, base_version=self._applied_version, version=self._version, now=now
        )

    def _refused(self, policy: Policy, revision: int, refusal: PolicyRefused) -> None:
        log.error("policy refused", field=refusal.field, reason=str(refusal))
        if self._wanted is policy and self._accepted is not None and self._accepted is not policy:
            self._wanted = self._accepted
            if self._in_force is None:
                self._tried_revision = 0  # this server has none at all yet: the accepted one is due
        self._settle(revision, refusal)

    async def _deliver(self, stream: Stream) -> None:
        """Hands signals over and acknowledges them."""
        while True:
            await self._signals_came.wait()
            self._signals_came.clear()
            signals, keys = list(self._signals.values()), list(self._key_signals.values())
            self._signals.clear()
            self._key_signals.clear()
            if not (signals or keys):
                continue
            try:
                if signals:
                    await self._on_signals(signals)
                if keys:
                    await self._on_key_signals(keys)
            except Exception:
                # Whatever went wrong with storing them, they must come again: later ones win over these.
                log.exception("signals could not be handled", accounts=len(signals), keys=len(keys))
                self._signals = {signal.account_id: signal for signal in signals} | self._signals
                self._key_signals = {counts.key_id: counts for counts in keys} | self._key_signals
                self._signals_came.set()
                await asyncio.sleep(1.0)
                continue
            ack = pb.SignalAck(
                sequences=[signal.sequence for signal in signals], key_sequences=[counts.sequence for counts in keys]
            )
            async with asyncio.timeout(self._call_timeout):
                await self._write(stream, pb.SyncRequest(signal_ack=ack))

    async def _write(self, stream: Stream, message: pb.SyncRequest) -> None:
        async with self._writing:  # gRPC takes one write at a time
            await stream.write(message)

    # --- Endings.

    def _note_end(self, status: RpcStatus) -> None:
        if self._ended is not None:
            return
        if status.code is grpc.StatusCode.FAILED_PRECONDITION:
            log.error("admission sync ended: a newer controller has taken over", term=self._term, status=str(status))
            self._end(SyncStatus.TERM_REFUSED, TermRefused(status.message))
        else:
            tell = log.warning if self.connected else log.info
            tell("admission sync ended", target=self._target, status=str(status))

    def _end(self, status: SyncStatus, error: AdmissionError) -> None:
        if self._ended is None:
            self._status = status
            self._ended = error
        self._settle(self._revision, error)

    def _settle(self, revision: int, error: AdmissionError | None) -> None:
        """Tells everybody whose policy is part of this revision how it went."""
        for waiter in self._waiters:
            if waiter.revision <= revision and not waiter.applied.done():
                if error is None:
                    waiter.applied.set_result(self._applied_version)
                else:
                    waiter.applied.set_exception(error)


async def _ignore(_signals: Sequence[KeySignal]) -> None:
    return
