"""`ControlService`: policy down, signals up. One controller at a time: the newest term, on its newest stream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import structlog
from admission.v1 import admission_pb2 as pb
from admission.v1 import control_service_pb2 as control_pb
from admission.v1 import control_service_pb2_grpc as control_grpc

from admission_server.delivery import Delivery
from admission_server.errors import CallError, Context, Draining, Malformed, SessionUnknown, TermSuperseded, abort
from admission_server.key_usage import KeyCounts, KeyUsageBoard
from admission_server.ledger import Ledger
from admission_server.policy import PolicyError
from admission_server.signals import Signal, SignalBoard
from admission_server.wire import OUTCOME_NUMBERS, check_instance, delta_from, duration, snapshot_from

log = structlog.get_logger(__name__)

HELLO_WITHIN = 10.0
LOOK_FOR_SIGNALS_EVERY = 0.25


class ControlServicer(control_grpc.ControlServiceServicer):
    """Takes the policy from the control API and tells it what edges saw."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        delivery: Delivery,
        signals: SignalBoard,
        key_usage: KeyUsageBoard,
        version: str,
        on_policy: Callable[[], Awaitable[None]],
    ) -> None:
        """`on_policy` is called after every policy that was applied."""
        self._ledger = ledger
        self._delivery = delivery
        self._signals = signals
        self._key_usage = key_usage
        self._version = version
        self._on_policy = on_policy
        self._term = 0
        self._version_in_term = 0
        self._current: _Controller | None = None

    async def Sync(  # noqa: N802  # named by the contract
        self, request_iterator: AsyncIterator[control_pb.SyncRequest], context: Context
    ) -> None:
        """Runs one controller's stream."""
        try:
            controller = await self._hello(request_iterator, context)
        except CallError as error:
            await abort(context, error)
        reader = asyncio.create_task(self._read(controller, request_iterator, context))
        signaller = asyncio.create_task(self._signal(controller, context))
        try:
            await asyncio.wait({reader, signaller}, return_when=asyncio.FIRST_COMPLETED)
            for task in (reader, signaller):
                failure = task.exception() if task.done() else None
                if isinstance(failure, CallError):
                    controller.closed_by = failure
                elif failure is not None:
                    raise failure
        finally:
            reader.cancel()
            signaller.cancel()
            if self._current is controller:
                self._current = None
            log.info("controller left", instance=controller.instance)
        if controller.closed_by is not None:
            await abort(context, controller.closed_by)

    async def ForgetSession(  # noqa: N802
        self, request: control_pb.ForgetSessionRequest, context: Context
    ) -> control_pb.ForgetSessionResponse:
        """Ends a session by hand."""
        ended = self._ledger.forget(request.session_id)
        if ended is None:
            await abort(context, SessionUnknown("no such session", field="session_id"))
        log.warning("session forgotten by hand", session_id=request.session_id, reclaimed=ended)
        self._delivery.deliver()
        return control_pb.ForgetSessionResponse(ended=ended or 0)

    def close(self) -> None:
        """Lets the controller go, because the server stops."""
        self._dismiss(Draining("the server is stopping", retry_after=1.0))

    def _dismiss(self, error: CallError) -> None:
        if self._current is not None:
            self._current.closed_by = error
            self._current = None
            self._delivery.status_changed.set()

    async def _hello(self, requests: AsyncIterator[control_pb.SyncRequest], context: Context) -> "_Controller":
        try:
            async with asyncio.timeout(HELLO_WITHIN):
                first = await anext(requests)
        except (TimeoutError, StopAsyncIteration):
            raise Malformed("the first message must say hello", field="hello") from None
        if first.WhichOneof("body") != "hello":
            raise Malformed("the first message must say hello", field="hello")
        check_instance(first.hello.instance, "hello.instance")
        term = first.hello.term
        if term < self._term:
            raise TermSuperseded(f"term {term} is over: the newest is {self._term}", field="hello.term")
        if term > self._term:
            self._term, self._version_in_term = term, 0
        controller = _Controller(first.hello.instance)
        self._dismiss(TermSuperseded(f"controller {controller.instance!r} has taken over"))
        self._current = controller
        self._signals.start_over()
        self._key_usage.start_over()
        log.info("controller arrived", instance=controller.instance, term=term)
        await context.write(
            control_pb.SyncResponse(
                welcome=control_pb.SyncWelcome(
                    epoch=self._ledger.epoch,
                    server_version=self._version,
                    policy_version=self._ledger.catalogue.version,
                )
            )
        )
        return controller

    async def _read(
        self, controller: "_Controller", requests: AsyncIterator[control_pb.SyncRequest], context: Context
    ) -> None:
        async for request in requests:
            if self._current is not controller:
                return
            body = request.WhichOneof("body")
            if body == "snapshot":
                response = self._apply(request.snapshot.version, partial(self._apply_snapshot, request.snapshot))
            elif body == "delta":
                response = self._apply(request.delta.version, partial(self._apply_delta, request.delta))
            elif body == "signal_ack":
                self._signals.acknowledge(request.signal_ack.sequences)
                self._key_usage.acknowledge(request.signal_ack.key_sequences)
                continue
            else:
                raise Malformed("must be a snapshot, a delta or a signal_ack", field=body or "body")
            await self._on_policy()
            await context.write(response)

    def _apply(self, version: int, apply: Callable[[], None]) -> control_pb.SyncResponse:
        try:
            apply()
        except (PolicyError, Malformed) as error:
            log.warning("policy refused", version=version, field=error.field, problem=str(error))
            rejected = control_pb.PolicyRejected(version=version, field=error.field, message=str(error))
            return control_pb.SyncResponse(rejected=rejected)
        self._version_in_term = version
        self._signals.keep_only(self._ledger.catalogue.selector.accounts)
        self._delivery.deliver()
        return control_pb.SyncResponse(applied=control_pb.PolicyApplied(version=version))

    def _apply_snapshot(self, message: control_pb.PolicySnapshot) -> None:
        if message.version < max(1, self._version_in_term):
            raise PolicyError(f"must not be below {max(1, self._version_in_term)}", field="snapshot.version")
        self._ledger.apply_snapshot(snapshot_from(message), acknowledged=self._signals.settled())

    def _apply_delta(self, message: control_pb.PolicyDelta) -> None:
        if message.version <= message.base_version:
            raise PolicyError("must be above base_version", field="delta.version")
        self._ledger.apply_delta(delta_from(message), acknowledged=self._signals.settled())

    async def _signal(self, controller: "_Controller", context: Context) -> None:
        while self._current is controller:
            now = self._ledger.now()
            signals = self._signals.take(now)
            messages = [message for signal in signals if (message := _signal_of(signal)) is not None]
            key_signals = [_key_signal(counts) for counts in self._key_usage.take(now)]
            if messages or key_signals:
                await context.write(control_pb.SyncResponse(signals=messages, key_signals=key_signals))
            self._delivery.status_changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_FOR_SIGNALS_EVERY):
                    await self._delivery.status_changed.wait()


class _Controller:
    __slots__ = ("closed_by", "instance")

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.closed_by: CallError | None = None


def _signal_of(signal: Signal) -> control_pb.AccountSignal | None:
    """Returns a signal as a message. One that cannot be written is a bug, but must not keep the others from being told:
    a stream that ended here would end again after every reconnect.
    """
    try:
        return _written(signal)
    except (ValueError, OverflowError):
        log.exception("signal cannot be written", account_id=signal.account_id)
        return None


def _written(signal: Signal) -> control_pb.AccountSignal:
    message = control_pb.AccountSignal(
        sequence=signal.sequence,
        account_id=signal.account_id,
        windows_age=duration(signal.windows_age),
        counters=_counters(signal),
    )
    if signal.event is not None:
        report = signal.event.report
        message.status_event.outcome = OUTCOME_NUMBERS[report.outcome]
        message.status_event.credential_version = report.credential_version
        message.status_event.status = report.status
        message.status_event.code = report.code
        message.status_event.refresh_wanted = signal.event.refresh_wanted
        message.status_event.age.CopyFrom(duration(signal.event_age))
        if signal.resets_after is not None:
            message.status_event.resets_after.CopyFrom(duration(signal.resets_after))
    for window in signal.windows:
        told = message.windows.add(length=duration(window.length), used_percent=window.used_percent)
        if window.resets_after is not None:
            told.resets_after.CopyFrom(duration(window.resets_after))
    if signal.credits is not None:
        message.credits.has_credits = signal.credits.has_credits
        message.credits.unlimited = signal.credits.unlimited
        message.credits.balance = signal.credits.balance
    return message


def _key_signal(counts: KeyCounts) -> control_pb.KeySignal:
    return control_pb.KeySignal(sequence=counts.sequence, key_id=counts.key_id, counters=_counters(counts))


def _counters(counted: Signal | KeyCounts) -> control_pb.SignalCounters:
    usage = counted.usage
    return control_pb.SignalCounters(
        succeeded=counted.succeeded,
        failed=counted.failed,
        usage=pb.TokenUsage(
            input_tokens=usage.input_tokens,
            cached_input_tokens=usage.cached_input_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
        ),
    )
