"""`AdmissionService`: gRPC on one side, the ledger on the other. Translate in, call, translate out; no rule lives here.

A `Session` stream has one reader and one writer. The writer sends a message whenever there is mail; what comes up while
a message is being written goes into the next. Within one message, acquires come last.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from random import Random
from typing import Any

import grpc.aio
import structlog
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1 import admission_service_pb2_grpc as session_grpc

from admission_server import sessions
from admission_server.accounts import Report
from admission_server.decisions import EndReason, Failed, HeldList
from admission_server.delivery import Delivery, Stream
from admission_server.errors import (
    CallError,
    Context,
    Draining,
    Forbidden,
    Malformed,
    SessionHasStream,
    SessionSuperseded,
    SessionUnknown,
    StreamFenced,
    TooManySessions,
    Unauthenticated,
    abort,
)
from admission_server.key_usage import KeyUsageBoard
from admission_server.ledger import Ledger, Opened, SessionRefused
from admission_server.roles import Role, RoleTokens
from admission_server.signals import SignalBoard
from admission_server.wire import (
    acquire_from,
    answer_of,
    check_counts,
    check_hello,
    check_instance,
    check_releases,
    check_session_id,
    duration,
    ended_of,
    fill_answer,
    heartbeat_from,
    hello_from,
    report_from,
    withdrawn_in,
)

log = structlog.get_logger(__name__)

HELLO_WITHIN = 10.0
FEWEST_LEASES_NAMED = 20_000
"""Leases that a message may name even where sessions may hold few: their bound may have been higher before."""
MOST_UNSENT = 5_000
"""Answers that may pile up for a holder that does not read; above it, its stream is not read either."""


class AdmissionServicer(session_grpc.AdmissionServiceServicer):
    """Grants leases and takes them back."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        delivery: Delivery,
        signals: SignalBoard,
        key_usage: KeyUsageBoard,
        roles: RoleTokens,
        remember: Callable[[], Awaitable[None]],
        random: Random,
    ) -> None:
        """`remember` returns once the sessions that are open now are on disk."""
        self._ledger = ledger
        self._delivery = delivery
        self._signals = signals
        self._key_usage = key_usage
        self._roles = roles
        self._remember = remember
        self._random = random
        # Twice as many as there can be: what may not have arrived is said again together with what is new.
        self._most_leases = max(FEWEST_LEASES_NAMED, 2 * ledger.terms.session_leases)

    # --- the stream --------------------------------------------------------------------------------------------------

    async def Session(  # noqa: N802  # named by the contract
        self, request_iterator: AsyncIterator[session_pb.SessionRequest], context: Context
    ) -> None:
        """Runs one stream from hello to its end."""
        try:
            stream = await self._hello(request_iterator, context)
        except CallError as error:
            await abort(context, error)
        reader = asyncio.create_task(self._read(stream, request_iterator))
        writer = asyncio.create_task(self._write(stream, context))
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                # The holder has said everything. What it is owed, it is still told.
                stream.finish(_failure_of(reader))
                await asyncio.wait({writer})
        finally:
            reader.cancel()
            writer.cancel()
            self._delivery.detach(stream)
            _, broken = await asyncio.gather(reader, writer, return_exceptions=True)
        if isinstance(broken, grpc.aio.BaseError):
            # The holder is gone in the middle of a message. Its session lives on, and its answers will be sent again.
            log.debug("stream broke", session_id=stream.session.session_id, problem=repr(broken))
            return
        if isinstance(broken, Exception):
            log.error("message cannot be written", session_id=stream.session.session_id, exc_info=broken)
            raise broken
        if stream.closed_by is not None:
            await abort(context, stream.closed_by)

    async def _hello(self, requests: AsyncIterator[session_pb.SessionRequest], context: Context) -> Stream:
        try:
            async with asyncio.timeout(HELLO_WITHIN):
                first = await anext(requests)
        except (TimeoutError, StopAsyncIteration):
            raise Malformed("the first message must say hello", field="hello") from None
        if not first.HasField("hello"):
            raise Malformed("the first message must say hello", field="hello")
        check_hello(first.hello, most_leases=self._most_leases)
        check_counts(first, most_leases=self._most_leases)
        session_id, instance, held = hello_from(first.hello)
        role = self._role(context)
        known = self._ledger.sessions.get(session_id)
        if known is not None and (known.instance, known.role, known.unary) == (instance, role, False):
            # What it gives back with its hello is not in its list any more; it must not be taken for leaked.
            self._release(known, first.releases)
        opened = self._open(session_id, instance, role, held=held, epoch=first.hello.epoch)
        stream = Stream(opened.session)
        try:
            await self._welcome_on(stream, opened, context)
        except BaseException:
            self._delivery.detach(stream)
            raise
        first.ClearField("heartbeat")
        first.ClearField("close")
        self._handle(stream, first)
        return stream

    async def _welcome_on(self, stream: Stream, opened: Opened, context: Context) -> None:
        fenced = self._delivery.attach(stream)
        if fenced is not None:
            fenced.fenced = True
            fenced.finish(StreamFenced("the session said hello on a newer stream"))
        self._delivery.deliver()
        await self._remember()
        if stream.closed_by is not None:
            # Fenced or ended while the disk was busy: the mail is for the stream that came after, if there is one.
            raise stream.closed_by
        mail = opened.session.take_mail()
        welcome = session_pb.SessionResponse(number=mail.number, welcome=self._welcome(opened))
        self._fill(welcome, opened.session, mail.answers, mail.ended)
        await context.write(welcome)
        stream.wake.set()

    async def _read(self, stream: Stream, requests: AsyncIterator[session_pb.SessionRequest]) -> None:
        async for request in requests:
            if stream.finished:
                return
            check_counts(request, most_leases=self._most_leases)
            self._handle(stream, request)
            while len(stream.session.answers) > MOST_UNSENT and not stream.finished:  # noqa: ASYNC110  # rare
                await asyncio.sleep(0.01)

    def _handle(self, stream: Stream, request: session_pb.SessionRequest) -> None:
        """Does everything that one message says, in the order that the contract promises."""
        session, ledger = stream.session, self._ledger
        ledger.renew(session)
        self._release(session, request.releases)
        if request.HasField("heartbeat"):
            heartbeat = heartbeat_from(request.heartbeat)
            stream.acknowledge(heartbeat.sequence, ledger.heartbeat(session, heartbeat))
        self._apply(request.reports)
        for message in request.acquires:
            try:
                acquire = acquire_from(message)
            except Malformed as error:
                ledger.refuse(session, Failed(request_id=message.request_id, field=error.field, message=str(error)))
            else:
                ledger.acquire(session, acquire)
        if request.close:
            ledger.close(session)
        self._delivery.deliver()

    def _release(self, session: sessions.Session, releases: Iterable[pb.Release]) -> int:
        ended = 0
        for release in releases:
            ended += self._ledger.release(session, release.lease_ids, withdrawn_in(release))
        return ended

    async def _write(self, stream: Stream, context: Context) -> None:
        session = stream.session
        while True:
            await stream.wake.wait()
            stream.wake.clear()
            # Once the stream is fenced, the mailbox is the newer stream's.
            while not stream.fenced and (session.has_mail or stream.ack is not None):
                mail = session.take_mail()
                response = session_pb.SessionResponse(number=mail.number, send_held=mail.send_held)
                self._fill(response, session, mail.answers, mail.ended)
                if stream.ack is not None:
                    sequence, dropped = stream.ack
                    stream.ack = None
                    response.heartbeat_ack.sequence = sequence
                    response.heartbeat_ack.heartbeat_in.CopyFrom(duration(self._next_heartbeat()))
                    response.heartbeat_ack.dropped_lease_ids.extend(dropped)
                    response.heartbeat_ack.has_policy = bool(self._ledger.catalogue.version)
                await context.write(response)
            if stream.finished:
                return

    # --- unary calls -------------------------------------------------------------------------------------------------

    async def OpenSession(  # noqa: N802
        self, request: session_pb.OpenSessionRequest, context: Context
    ) -> session_pb.OpenSessionResponse:
        """Opens a session without a stream."""
        try:
            check_instance(request.instance, "instance")
            session_id = request.session_id or f"unary_{secrets.token_hex(12)}"
            check_session_id(session_id, "session_id")
            opened = self._open(session_id, request.instance, self._role(context), unary=True)
            self._delivery.deliver()
            try:
                await self._remember()
            except CallError:
                if not opened.resumed:
                    # Nobody is told of it, so nobody would ever close it.
                    self._ledger.close(opened.session)
                    self._delivery.deliver()
                raise
        except CallError as error:
            await abort(context, error)
        return session_pb.OpenSessionResponse(session_id=session_id, welcome=self._welcome(opened))

    async def Heartbeat(  # noqa: N802
        self, request: session_pb.HeartbeatRequest, context: Context
    ) -> session_pb.HeartbeatResponse:
        """Renews a session of unary calls."""
        try:
            session = self._session(request.session_id, context)
            most = self._ledger.terms.unary_leases
            if len(request.lease_ids) > most:
                raise Malformed(f"at most {most}; use a stream for more", field="lease_ids")
        except CallError as error:
            await abort(context, error)
        ended = self._ledger.heartbeat_by_list(session, request.lease_ids)
        self._delivery.deliver()
        return session_pb.HeartbeatResponse(
            ttl=duration(self._ledger.terms.ttl),
            heartbeat_in=duration(self._next_heartbeat()),
            ended=ended_of(ended),
        )

    async def Acquire(  # noqa: N802
        self, request: session_pb.AcquireRequest, context: Context
    ) -> session_pb.AcquireResponse:
        """Asks for seats and waits for the answer."""
        try:
            session = self._session(request.session_id, context)
            acquire = acquire_from(request.acquire)
            future = self._delivery.expect(session, acquire.request_id)
            try:
                self._ledger.renew(session)
                self._ledger.acquire(session, acquire)
                self._delivery.deliver()
                answer = await future
            finally:
                self._delivery.give_up(session, acquire.request_id, future)
            if isinstance(answer, Failed):
                raise Malformed(answer.message, field=f"acquire.{answer.field}")
        except CallError as error:
            await abort(context, error)
        return session_pb.AcquireResponse(answer=answer_of(answer, with_credential=session.role == Role.EDGE))

    async def Release(  # noqa: N802
        self, request: session_pb.ReleaseRequest, context: Context
    ) -> session_pb.ReleaseResponse:
        """Gives seats back."""
        try:
            session = self._session(request.session_id, context)
            check_releases(request.releases, request.reports, most_leases=self._most_leases)
        except CallError as error:
            await abort(context, error)
        self._ledger.renew(session)
        ended = self._release(session, request.releases)
        self._apply(request.reports)
        self._delivery.deliver()
        return session_pb.ReleaseResponse(ended=ended)

    async def CloseSession(  # noqa: N802
        self, request: session_pb.CloseSessionRequest, context: Context
    ) -> session_pb.CloseSessionResponse:
        """Ends a session in order."""
        try:
            session = self._session(request.session_id, context)
        except SessionUnknown:
            return session_pb.CloseSessionResponse(ended=0)
        except CallError as error:
            await abort(context, error)
        ended = self._ledger.close(session)
        self._delivery.deliver()
        return session_pb.CloseSessionResponse(ended=ended)

    # --- what they share ---------------------------------------------------------------------------------------------

    def _role(self, context: Context) -> Role:
        role = self._roles.role_of(context.invocation_metadata())
        if role is None:
            raise Unauthenticated("needs a role token: metadata 'authorization: Bearer <token>'")
        return role

    def _open(
        self,
        session_id: str,
        instance: str,
        role: Role,
        *,
        held: HeldList | None = None,
        epoch: int | None = None,
        unary: bool = False,
    ) -> Opened:
        if self._ledger.draining:
            raise Draining("the server is stopping", retry_after=1.0)
        try:
            return self._ledger.open(
                session_id, instance=instance, role=role.value, held=held, epoch=epoch, unary=unary
            )
        except SessionRefused as refused:
            if refused.reason is EndReason.SUPERSEDED:
                raise SessionSuperseded(str(refused)) from None
            if refused.mixed:
                raise SessionHasStream(str(refused), field="session_id") from None
            if refused.full:
                raise TooManySessions(str(refused), retry_after=5.0) from None
            raise Forbidden(str(refused)) from None

    def _session(self, session_id: str, context: Context) -> sessions.Session:
        """Returns the session of a unary call. A token may use sessions of its own role only: ids are no secret."""
        session = self._ledger.sessions.get(session_id)
        if session is None:
            raise SessionUnknown("no such session: open one", field="session_id")
        if session.role != self._role(context):
            raise Forbidden("this session belongs to another role", field="session_id")
        if not session.unary:
            raise SessionHasStream("this session has a stream: say it there", field="session_id")
        return session

    def _welcome(self, opened: Opened) -> session_pb.Welcome:
        terms = self._ledger.terms
        return session_pb.Welcome(
            epoch=self._ledger.epoch,
            ttl=duration(terms.ttl),
            heartbeat_in=duration(self._next_heartbeat()),
            resumed=opened.resumed,
            dropped_lease_ids=opened.dropped,
            lease_limit=opened.session.lease_limit,
            has_policy=bool(self._ledger.catalogue.version),
        )

    def _next_heartbeat(self) -> float:
        # Jittered, so that holders that started together do not stay together.
        return self._ledger.terms.heartbeat * self._random.uniform(0.8, 1.0)

    def _fill(
        self,
        response: session_pb.SessionResponse,
        session: sessions.Session,
        answers: Iterable[Any],
        ended: Iterable[Any],
    ) -> None:
        with_credential = session.role == Role.EDGE
        add = response.answers.add
        for answer in answers:
            fill_answer(add(), answer, with_credential=with_credential)
        if ended:
            response.ended.extend(ended_of(ended))

    def _apply(self, messages: Iterable[pb.AccountReport]) -> None:
        for message in messages:
            try:
                report: Report = report_from(message)
            except Malformed as error:
                # A report is a courtesy: a bad one must not cost a holder its stream.
                log.warning(
                    "report dropped", account_id=message.account_id[:128], field=error.field, problem=str(error)
                )
                continue
            verdict = self._ledger.report(report)
            catalogue, now = self._ledger.catalogue, self._ledger.now()
            if report.account_id in catalogue.selector.accounts:
                self._signals.record(report, verdict, now)
            key = catalogue.key(report.key_sha256) if report.key_sha256 else None
            if key is not None:
                self._key_usage.record(key.key_id, report, now)
            if verdict.concerns_status:
                self._delivery.status_changed.set()


def _failure_of(reader: "asyncio.Task[None]") -> CallError | None:
    error = reader.exception() if not reader.cancelled() else None
    if isinstance(error, CallError):
        return error
    if error is not None:
        raise error
    return None
