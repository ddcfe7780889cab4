"""`AdmissionClient`: leases over one coalescing `Session` stream.

The protocol is `holder.Holder`; here are the tasks, timers and sockets around it. One task lives through streams one
after another; while one is open, a second task writes. Whatever has piled up while a message was being written goes
into the next one: there is no batching delay, and a caller alone waits for nobody.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, Self

import grpc
import grpc.aio
import structlog
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1.admission_service_pb2_grpc import AdmissionServiceStub

from admission_client.errors import AdmissionError, AdmissionUnavailable
from admission_client.holder import Claim, Holder, new_session_id, nobody_waits
from admission_client.lease import AccountNeeds, AccountReport, Grant, GrantedAccount
from admission_client.rpc import EndedCall, RpcStatus, ended_with, open_channel, reconnect_delay, role_metadata

log = structlog.get_logger(__name__)

SUPERSEDED = "SESSION_SUPERSEDED"
"""`ErrorInfo.reason` of a stream that ends because another process has taken over the instance name."""


class Stream(EndedCall, Protocol):
    """What we need of a stream's client end; `grpc.aio` gives the real one, the network simulation its own."""

    async def read(self) -> object:
        """Returns the next message, or `grpc.aio.EOF`."""

    async def write(self, request: session_pb.SessionRequest, /) -> None:
        """Returns once the message is on its way."""

    async def done_writing(self) -> None:
        """Says that no message will follow."""


OpenStream = Callable[[], AbstractAsyncContextManager[Stream]]


class AdmissionClient:
    """Takes leases from the admission server, keeps them alive and gives them back. Implements `lease.Admission`.

    Use it as a block: it connects in the background on entering, and closes its session in order on leaving. It never
    gives up on a server that is away; callers are told `AdmissionUnavailable` after `unavailable_wait` seconds.

    Args:
        target: Address of the admission server, such as "127.0.0.1:50051".
        token: Role token.
        instance: Name of this holder that no other one has, and that stays the same over restarts.
        credentials: TLS; None for plaintext.
        clock: Monotonic seconds.
        source: Random numbers, for the session id and the jitter of reconnects.
        unavailable_wait: How long an acquire waits for a server that is away.
        max_unavailable_waiters: How many may wait so at once.
        connect_timeout: How long dialling and the server's welcome may take, and later each write.
        open_stream: Opens a stream that ends with its block; None for gRPC.
    """

    def __init__(
        self,
        target: str,
        token: str,
        instance: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        clock: Callable[[], float] = time.monotonic,
        source: random.Random | None = None,
        unavailable_wait: float = 5.0,
        max_unavailable_waiters: int = 1000,
        connect_timeout: float = 5.0,
        open_stream: OpenStream | None = None,
    ) -> None:
        self._target = target
        self._metadata = role_metadata(token)
        self._credentials = credentials
        self._clock = clock
        self._random = source or random.Random()  # noqa: S311 (jitter and names, not secrets)
        self._connect_timeout = connect_timeout
        self._open_stream = open_stream or self._open_grpc_stream
        self._holder = Holder(
            instance=instance,
            session_id=new_session_id(self._random),
            clock=clock,
            unavailable_wait=unavailable_wait,
            max_unavailable_waiters=max_unavailable_waiters,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._life: asyncio.Task[None] | None = None
        self._patience: asyncio.Timeout | None = None
        self._something_to_say = asyncio.Event()
        self._ready = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._life = asyncio.create_task(self._live(), name=f"admission session {self._holder.session_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.close()
        self._something_to_say.set()
        if self._life is None:
            return
        try:
            if self._holder.connected:
                await asyncio.wait([self._life], timeout=2.0)
        finally:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
            self._set_alarm(float("inf"))

    def acquire(
        self,
        resources: Sequence[str],
        *,
        key_sha256: bytes | None = None,
        peer: str | None = None,
        account: AccountNeeds | None = None,
        max_wait: float | None = None,
        label: str = "",
    ) -> "Acquisition":
        """Takes one seat of each resource; see `lease.Admission.acquire`."""
        return Acquisition(self, Claim(resources, key_sha256, peer, account, max_wait, label))

    def report(self, report: AccountReport) -> None:
        """Tells the server what was seen of an account; see `lease.Admission.report`."""
        self._holder.report(report)
        self._something_to_say.set()

    @property
    def ready(self) -> bool:
        """Whether there is a session now and a policy has been in force in it."""
        return self._holder.connected and self._holder.has_policy

    @property
    def connected(self) -> bool:
        """Whether there is a session now."""
        return self._holder.connected

    @property
    def ended(self) -> AdmissionError | None:
        """Why this client is over for good (closed, superseded), or None while it is not."""
        return self._holder.ended

    @property
    def session_id(self) -> str:
        """The id of this client's session."""
        return self._holder.session_id

    @property
    def epoch(self) -> int:
        """The incarnation of the server as last heard; 0 before that."""
        return self._holder.epoch

    @property
    def lease_count(self) -> int:
        """How many leases are held."""
        return self._holder.lease_count

    @property
    def lease_ids(self) -> frozenset[int]:
        """The leases that are held."""
        return self._holder.lease_ids

    @property
    def live(self) -> bool:
        """Whether something new may be started on leases that are held."""
        return self._holder.live

    @property
    def pending_count(self) -> int:
        """How many acquires wait for an answer."""
        return self._holder.pending_count

    async def wait_until_ready(self, timeout: float) -> None:
        """Waits until `ready`. Raises `AdmissionUnavailable` when that takes longer than `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not self.ready:
                    self._ready.clear()
                    await self._ready.wait()
        except TimeoutError:
            raise self._holder.ended or AdmissionUnavailable("no session with a policy yet") from None

    # --- One stream after another.

    async def _live(self) -> None:
        attempt = 0
        while self._holder.ended is None:
            began = self._clock()
            was_welcomed = False
            try:
                was_welcomed = await self._open_and_follow()
            except Exception:
                # A bug on this road must not end the road: nothing would ever be granted here again.
                log.exception("admission session failed", target=self._target)
            finally:
                self._holder.disconnected()
                self._rearm()
            attempt = 0 if was_welcomed and self._clock() - began > 1.0 else attempt + 1
            if self._holder.ended is None:
                await asyncio.sleep(reconnect_delay(self._random, attempt))

    async def _open_and_follow(self) -> bool:
        """Lives one stream from hello to its end. Returns whether the server had welcomed it."""
        welcomed = False
        async with self._open_stream() as stream:
            try:
                async with asyncio.timeout(self._connect_timeout):
                    await stream.write(self._holder.hello())
                    welcomed = await self._receive(stream)
                if welcomed:
                    log.info("admission session connected", target=self._target, epoch=self._holder.epoch)
                    await self._follow(stream)
                self._note_end(await ended_with(stream), welcomed=welcomed)
            except TimeoutError:
                log.warning("admission server is silent", target=self._target, was_welcomed=welcomed)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                self._note_end(await ended_with(stream), welcomed=welcomed)
        return welcomed

    @contextlib.asynccontextmanager
    async def _open_grpc_stream(self) -> AsyncIterator[Stream]:
        channel = open_channel(self._target, self._credentials)
        stream = AdmissionServiceStub(channel).Session(metadata=self._metadata)
        try:
            yield stream
        finally:
            stream.cancel()
            await channel.close(None)

    async def _follow(self, stream: Stream) -> None:
        writer = asyncio.create_task(self._write(stream))

        def give_up(task: asyncio.Task[None]) -> None:
            # A stream on which we can only listen is of no use: it ends as if the server had gone silent.
            if not task.cancelled() and (error := task.exception()) is not None and self._patience is not None:
                if isinstance(error, TimeoutError):
                    log.warning("admission server has stopped reading", target=self._target)
                else:
                    log.error("admission session cannot write", target=self._target, exc_info=error)
                self._patience.reschedule(asyncio.get_running_loop().time())

        writer.add_done_callback(give_up)
        try:
            async with asyncio.timeout(None) as self._patience:
                while await self._receive(stream):
                    pass
        finally:
            self._patience = None
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _receive(self, stream: Stream) -> bool:
        """Applies the next message; false when the stream has ended. The alarm ends the wait on a silent stream."""
        message = await stream.read()
        if not isinstance(message, session_pb.SessionResponse):  # grpc.aio.EOF
            return False
        self._holder.received(message)
        self._something_to_say.set()
        self._rearm()
        if self.ready:
            self._ready.set()
        return True

    async def _write(self, stream: Stream) -> None:
        """Writes whatever has piled up. A write that hangs, because nobody reads at the other end, ends the stream."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                message = self._holder.take()
                if message is not None:
                    async with asyncio.timeout(self._connect_timeout):
                        await stream.write(message)
                    if message.close:
                        await stream.done_writing()
                        return
                else:
                    self._rearm()
                    self._something_to_say.clear()
                    await self._something_to_say.wait()

    def _note_end(self, status: RpcStatus, *, welcomed: bool) -> None:
        if status.reason == SUPERSEDED:
            log.error(
                "admission session superseded: another process uses our instance name",
                instance=self._holder.instance,
                session_id=self._holder.session_id,
            )
            self._holder.superseded(status.message)
        elif self._holder.ended is None:
            tell = log.info if status.code is grpc.StatusCode.UNAVAILABLE and not welcomed else log.warning
            tell("admission stream ended", target=self._target, status=str(status), was_welcomed=welcomed)

    # --- Time.

    def _rearm(self) -> None:
        deadline = self._holder.deadline()
        if deadline != self._alarm_at:
            self._set_alarm(deadline)

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._alarm_at = at
        if at != float("inf") and self._loop is not None:
            self._alarm = self._loop.call_later(max(0.001, at - self._clock()), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._alarm_at = float("inf")
        self._holder.tick()
        if self._holder.silent and self._patience is not None:
            self._patience.reschedule(0.0)
            self._patience = None
            return
        self._something_to_say.set()
        if not self._holder.connected:
            self._rearm()

    # --- For `Acquisition` only.

    def new_future(self) -> "asyncio.Future[None]":
        """Returns a future of this client's loop. Python 3.11 asks the kernel for each `get_running_loop`."""
        return (self._loop or asyncio.get_running_loop()).create_future()

    def ask(self, claim: Claim) -> None:
        """Starts an acquire."""
        self._holder.ask(claim)
        if self._holder.connected:
            self._something_to_say.set()
        else:
            self._rearm()

    def abandon(self, claim: Claim) -> None:
        """Ends an acquire whose caller has gone."""
        self._holder.abandon(claim)
        self._something_to_say.set()

    def release(self, claim: Claim, *families: str) -> None:
        """Gives seats back."""
        self._holder.release(claim, *families)
        self._something_to_say.set()

    def is_live(self, claim: Claim) -> bool:
        """Whether something new may be started on a claim."""
        return self._holder.is_live(claim)

    def release_forgotten(self, claim: Claim) -> None:
        """Gives back what somebody has dropped without releasing it. Safe to call from a finaliser."""
        if self._loop is not None:
            # A finaliser may run anywhere, also in the middle of the holder's own code: step aside.
            with contextlib.suppress(RuntimeError):  # the loop is closed: so is the session
                self._loop.call_soon_threadsafe(self._release_forgotten, claim)

    def _release_forgotten(self, claim: Claim) -> None:
        if claim.held and self._holder.ended is None:
            log.warning(
                "lease was dropped without a release", resources=claim.held_resources, request_id=claim.request_id
            )
            self.release(claim)


class Acquisition:
    """One `async with`: asks on entering, is the grant inside, gives back on leaving."""

    __slots__ = ("_claim", "_client", "_woken")

    def __init__(self, client: AdmissionClient, claim: Claim) -> None:
        self._client = client
        self._claim = claim
        self._woken: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Grant:
        if self._woken is not None:
            raise RuntimeError("an acquire can be entered once only")
        woken = self._woken = self._client.new_future()
        claim = self._claim
        claim.wake = self._wake
        self._client.ask(claim)
        if not claim.settled:
            try:
                # Bounded by the server's `max_wait`, and by `unavailable_wait` as soon as a heartbeat goes unanswered.
                await woken
            except BaseException:
                self._client.abandon(claim)
                raise
        # The claim outlives this object while the holder keeps it: without the reference back, no cycle is left to
        # the garbage collector, and a grant that nobody refers to any more is found at once.
        claim.wake = nobody_waits
        if claim.error is not None:
            # The error that is raised names this frame, and with it the claim: if the claim went on naming the error,
            # all of a refused request would be left to the garbage collector, a third of what a refusal costs.
            try:
                raise claim.error
            finally:
                claim.error = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.release(self._claim)

    def __del__(self) -> None:
        if any(self._claim.lease_ids):
            self._client.release_forgotten(self._claim)

    @property
    def resources(self) -> tuple[str, ...]:
        """Full names of the resources still held."""
        return self._claim.held_resources

    @property
    def account(self) -> GrantedAccount | None:
        """The account that was selected."""
        return self._claim.account

    @property
    def key_id(self) -> str:
        """Id of the client's API key."""
        return self._claim.key_id

    @property
    def request_id(self) -> str:
        """The acquire's id on the wire, as `ListLeases` shows it."""
        return self._claim.request_id

    @property
    def live(self) -> bool:
        """Whether something new may be started on it."""
        return self._client.is_live(self._claim)

    def release(self, *families: str) -> None:
        """Gives seats back now; see `lease.Grant.release`."""
        self._client.release(self._claim, *families)

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
