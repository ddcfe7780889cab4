"""A holder of leases as a state machine: the client's half of the `Session` protocol, without IO and without waiting.

It is fed with the callers' wishes, the server's messages and the time, and says which message to send next. Rules:

* An acquire is *pending* until it is answered, given up or withdrawn; its request id never changes. A new stream asks
  again for everything that is pending.
* What was said but may not have arrived (releases, withdrawals, reports) is kept until the server's answer proves that
  the message was read, and is said again on the next stream. Saying it twice is harmless.
* `seen`, count and digest always describe the set of leases after the last applied message, less what this or an
  earlier message of the same stream releases. Therefore releases never wait behind a heartbeat.
* What cannot be said (text that has no encoding, say) concerns its own caller only: such a report is dropped, such an
  acquire is rejected, and the message goes without it.
* Nothing new may be started on a lease past `sent_at + ttl` of the last heartbeat that was acknowledged.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb

from admission_client import bounds, wire
from admission_client.digest import LeaseDigest
from admission_client.errors import AcquireRejected, AdmissionError, AdmissionUnavailable, Denied, SessionSuperseded
from admission_client.lease import AccountNeeds, AccountReport, GrantedAccount
from admission_client.reports import ReportBacklog

log = structlog.get_logger(__name__)

_INVALID_ARGUMENT = 3
_UNAVAILABLE = 14
_NO_POLICY_HEARTBEAT = 0.5
_ACQUIRES_A_MESSAGE = 64
"""Without a bound 128 callers march in step: all wait while the server decides, and it waits while they run. With one,
both sides work at once. A message costs either side some 200 µs whatever it carries, most of it threads of gRPC that
wake each other, so it must not be small: 48 did 82,000 cycles a second, 64 did 94,000, 96 (one and a third messages
for 128 callers) 78,000. From 100 to 500 callers 64 was the best or near it (benchmarks/README.md)."""
_LABEL_BYTES = 100
_WITHDRAWALS_KEPT = 10_000
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIGIT_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]


class Claim:
    """One acquire and what came of it.

    `wake` is called once, when it is settled: granted, or `error` is set.
    """

    __slots__ = (
        "account",
        "asked_at",
        "error",
        "granted_at",
        "key_id",
        "key_sha256",
        "label",
        "lease_ids",
        "lost",
        "max_wait",
        "needs",
        "peer",
        "request_id",
        "resources",
        "sent_in",
        "settled",
        "wake",
        "was_sent",
    )

    def __init__(  # noqa: PLR0917  # one is made for every acquire, and by name they cost three quarters more
        self,
        resources: Sequence[str],
        key_sha256: bytes | None = None,
        peer: str | None = None,
        needs: AccountNeeds | None = None,
        max_wait: float | None = None,
        label: str = "",
    ) -> None:
        if key_sha256 is not None and peer is not None:
            raise ValueError("a flow is a key or a peer, not both")
        self.resources = tuple(resources)
        self.key_sha256 = key_sha256
        self.peer = peer
        self.needs = needs
        self.max_wait = max_wait
        self.label = label
        self.wake: Callable[[], None] = nobody_waits
        self.request_id = ""
        self.asked_at = 0.0
        self.settled = False
        self.error: AdmissionError | None = None
        self.lost = False
        self.was_sent = False
        self.sent_in = 0
        self.lease_ids: list[int] = []
        self.account: GrantedAccount | None = None
        self.key_id = ""
        self.granted_at = 0.0

    @property
    def held(self) -> bool:
        """Whether any seat of it is still held."""
        return any(self.lease_ids)

    @property
    def held_resources(self) -> tuple[str, ...]:
        """Full names of the resources that are still held."""
        return tuple(self.full_name(n) for n, lease_id in enumerate(self.lease_ids) if lease_id)

    def full_name(self, index: int) -> str:
        """Returns the name of one of its resources, with the account's or key's id in it."""
        name = self.resources[index]
        if name.startswith("accounts/-/") and self.account is not None:
            return name.replace("-", self.account.account_id, 1)
        if name.startswith("keys/-/"):
            return name.replace("-", self.key_id, 1)
        return name


@dataclass(slots=True)
class _Said:
    """What one message gives back, withdraws and reports."""

    index: int = 0
    lease_ids: list[int] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)
    reports: list[AccountReport] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lease_ids or self.request_ids or self.reports)


class Holder:
    """One session. Not safe for threads; give it one event loop or one simulation."""

    def __init__(
        self,
        *,
        instance: str,
        session_id: str,
        clock: Callable[[], float],
        unavailable_wait: float = 5.0,
        max_unavailable_waiters: int = 1000,
        report_backlog: int = 1000,
    ) -> None:
        self.instance = instance
        self.session_id = session_id
        self.epoch = 0
        self.seen = 0
        self.ttl = 0.0
        self.has_policy = False
        self._clock = clock
        self._unavailable_wait = unavailable_wait
        self._max_unavailable_waiters = max_unavailable_waiters
        self._ended: AdmissionError | None = None
        # what we hold and wait for
        self._pending: dict[str, Claim] = {}
        self._held: dict[int, Claim] = {}
        self._digest = LeaseDigest()
        self._live_until = float("-inf")
        self._counter = 0
        self._counter_prefix = ""
        # the stream there is now
        self._streaming = False
        self._welcomed = False
        self._away_since = clock()
        self._hello_at = 0.0
        self._messages = 0
        self._closing = False
        self._asking: list[Claim] = []
        self._saying = _Said()
        self._unconfirmed: deque[_Said] = deque()
        self._reports = ReportBacklog(report_backlog)
        self._writer = wire.AcquireWriter()
        # heartbeats
        self._sequence = 0
        self._heartbeat_due = float("inf")
        self._list_wanted = False
        self._unacknowledged: dict[int, tuple[float, int]] = {}

    # --- What there is to know.

    @property
    def connected(self) -> bool:
        """Whether the server has welcomed the stream there is now."""
        return self._welcomed

    @property
    def ended(self) -> AdmissionError | None:
        """Why this session is over for good, or None while it is not."""
        return self._ended

    @property
    def live(self) -> bool:
        """Whether something new may be started on leases that are held."""
        return self._clock() < self._live_until

    @property
    def live_until(self) -> float:
        """Until when that is so, unless another heartbeat is acknowledged."""
        return self._live_until

    @property
    def lease_count(self) -> int:
        """How many leases are held."""
        return len(self._held)

    @property
    def lease_ids(self) -> frozenset[int]:
        """The leases that are held."""
        return frozenset(self._held)

    @property
    def pending_count(self) -> int:
        """How many acquires wait for an answer."""
        return len(self._pending)

    @property
    def silent(self) -> bool:
        """Whether the server has left a heartbeat unanswered for so long that the stream must be given up."""
        return self._clock() >= self._silent_at()

    # --- What callers want.

    def ask(self, claim: Claim) -> None:
        """Starts an acquire. It may be settled at once: the session is over, or too many wait for the server."""
        claim.request_id = self._next_request_id(claim.label)
        claim.asked_at = self._clock()
        if self._ended is not None:
            self._settle(claim, self._ended)
        elif not self._welcomed and len(self._pending) >= self._max_unavailable_waiters:
            self._settle(claim, AdmissionUnavailable("too many acquires wait for the admission server"))
        else:
            self._pending[claim.request_id] = claim
            if self._streaming:
                self._asking.append(claim)

    def abandon(self, claim: Claim) -> None:
        """Ends an acquire whose caller has gone: withdrawn when it waits, released when it was granted meanwhile."""
        if claim.settled:
            self.release(claim)
            return
        self._forget(claim, AdmissionUnavailable("the caller has gone"))

    def release(self, claim: Claim, *names: str) -> None:
        """Gives seats of a claim back: those named as in the acquire, or all. Twice is fine."""
        if not names:
            for index, lease_id in enumerate(claim.lease_ids):
                if lease_id:
                    claim.lease_ids[index] = 0
                    self._give_back(lease_id)
            return
        for index, name in enumerate(claim.resources):
            if name in names and index < len(claim.lease_ids) and claim.lease_ids[index]:
                lease_id = claim.lease_ids[index]
                claim.lease_ids[index] = 0
                self._give_back(lease_id)

    def report(self, report: AccountReport) -> None:
        """Passes on what was seen of an account; while the server is away it is merged with others and bounded."""
        if self._welcomed:
            self._saying.reports.append(report)
        else:
            self._reports.add(report)

    def is_live(self, claim: Claim) -> bool:
        """Whether something new may be started on a claim."""
        return claim.held and not claim.lost and self.live

    # --- What happens to the stream.

    def hello(self) -> session_pb.SessionRequest:
        """Returns the first message of a new stream: who we are, all we hold, all we said in vain, all we wait for."""
        if self._streaming:
            self.disconnected()
        self._streaming = True
        self._hello_at = self._clock()
        message = session_pb.SessionRequest()
        message.hello.instance = bounds.text(self.instance)
        message.hello.session_id = self.session_id
        message.hello.epoch = self.epoch
        self._fill_list(message.hello.held)
        self._asking = list(self._pending.values())
        self._saying.reports.extend(self._reports.take())
        self._say(message, most=len(self._asking))
        return message

    def take(self) -> session_pb.SessionRequest | None:
        """Returns the next message, with everything that has piled up, or None when there is nothing to say."""
        if not self._welcomed:
            return None
        due = self._clock() >= self._heartbeat_due
        if not (self._asking or self._saying or due or self._closing):
            return None
        message = session_pb.SessionRequest()
        if due:
            self._add_heartbeat(message)
        self._say(message, most=_ACQUIRES_A_MESSAGE)
        if self._closing:
            message.close = True
            self._welcomed = False
        return message

    def received(self, message: session_pb.SessionResponse) -> None:
        """Applies one message of the server."""
        self.seen = message.number
        if message.HasField("welcome"):
            self._apply_welcome(message.welcome)
        if message.answers:
            self._apply_answers(message.answers)
        if message.HasField("heartbeat_ack"):
            self._apply_heartbeat_ack(message.heartbeat_ack)
        for ended in message.ended:
            self._lose(ended.lease_id, end_reason(ended.reason))
        if message.send_held:
            self._list_wanted = True
            self._heartbeat_due = self._clock()

    def disconnected(self) -> None:
        """Notes that the stream is gone. Everything that may not have arrived will be said again on the next one."""
        if not self._streaming:
            return
        if self._welcomed:
            self._away_since = min((sent_at for sent_at, _ in self._unacknowledged.values()), default=self._clock())
        self._streaming = self._welcomed = self.has_policy = False
        self._messages = 0
        self._heartbeat_due = float("inf")
        self._list_wanted = False
        self._unacknowledged.clear()
        self._asking = []
        again = _Said()
        for said in (*self._unconfirmed, self._saying):
            again.lease_ids += said.lease_ids
            again.request_ids += said.request_ids
        for said in self._unconfirmed:
            self._reports.add_repeated(said.reports)
        for report in self._saying.reports:
            self._reports.add(report)
        # More would only make the first message too large: what the server granted to a forgotten acquire is found by
        # the next heartbeat's digest as well.
        del again.request_ids[:-_WITHDRAWALS_KEPT]
        self._unconfirmed.clear()
        self._saying = again

    def tick(self) -> None:
        """Gives up acquires that have waited for the server for too long. Call it whenever `deadline` has come."""
        now = self._clock()
        while (claim := self._first_to_give_up()) is not None and self._give_up_at(claim) <= now:
            self._forget(claim, AdmissionUnavailable("the admission server cannot be reached"))

    def deadline(self) -> float:
        """Returns when to call `tick` and `take` again if nothing happens before; infinity for never."""
        if self._welcomed:
            return min(self._heartbeat_due, self._silent_at())
        claim = self._first_to_give_up()
        return self._give_up_at(claim) if claim is not None else float("inf")

    def close(self) -> None:
        """Ends the session in order: the next message is the last. What still waits is given up."""
        self._closing = True
        self._end(AdmissionUnavailable("the admission client is closed"))

    def superseded(self, message: str) -> None:
        """Ends the session for good, because another process has taken over our instance name."""
        self._end(SessionSuperseded(message))

    # --- Sending.

    def _say(self, message: session_pb.SessionRequest, *, most: int) -> None:
        self._messages += 1
        said = self._saying
        if said:
            if said.lease_ids:
                message.releases.add(lease_ids=said.lease_ids)
            for request_id in said.request_ids:
                message.releases.add(request_id=request_id)
            for report in said.reports:
                self._add_report(message, report)
            said.index = self._messages
            self._unconfirmed.append(said)
            self._saying = _Said()
        asking, self._asking = self._asking[:most], self._asking[most:]
        acquires = message.acquires
        for claim in asking:
            try:
                self._fill_acquire(acquires.add(), claim)
            except Exception as error:  # whatever is wrong with it is its caller's alone, and must not stop the others
                del acquires[-1]
                self._pending.pop(claim.request_id, None)
                self._settle(claim, AcquireRejected(f"cannot be said: {error}", code=_INVALID_ARGUMENT))

    @staticmethod
    def _add_report(message: session_pb.SessionRequest, report: AccountReport) -> None:
        try:
            message.reports.append(wire.account_report(report))
        except Exception as error:  # as with an acquire; kept, it would stop this stream and every later one
            log.warning("report dropped: it cannot be said", problem=repr(error))

    def _fill_acquire(self, acquire: pb.Acquire, claim: Claim) -> None:
        max_wait = claim.max_wait
        if max_wait is not None:
            max_wait -= self._clock() - claim.asked_at
        self._writer.fill(
            acquire,
            claim.request_id,
            claim.resources,
            key_sha256=claim.key_sha256,
            peer=claim.peer,
            needs=claim.needs,
            max_wait=max_wait,
        )
        claim.sent_in = self._messages
        claim.was_sent = True

    def _add_heartbeat(self, message: session_pb.SessionRequest) -> None:
        now = self._clock()
        self._sequence += 1
        message.heartbeat.sequence = self._sequence
        message.heartbeat.seen = self.seen
        message.heartbeat.lease_count = len(self._held)
        message.heartbeat.lease_digest = self._digest.value()
        if self._list_wanted:
            self._list_wanted = False
            self._fill_list(message.heartbeat.held)
        self._unacknowledged[self._sequence] = (now, self._messages + 1)
        # the server says when the next one is due; until it has said so, this paces us
        self._heartbeat_due = now + self.ttl / 3

    def _fill_list(self, message: session_pb.LeaseList) -> None:
        now = self._clock()
        message.seen = self.seen
        for lease_id, claim in self._held.items():
            wire.add_held_lease(
                message,
                lease_id=lease_id,
                resource=claim.full_name(claim.lease_ids.index(lease_id)),
                account_id=claim.account.account_id if claim.account is not None else "",
                request_id=claim.request_id,
                key_id=claim.key_id,
                peer=claim.peer,
                age=now - claim.granted_at,
            )

    # --- Receiving.

    def _apply_welcome(self, welcome: session_pb.Welcome) -> None:
        self._welcomed = True
        self.epoch = welcome.epoch
        self.ttl = wire.seconds(welcome.ttl)
        self._live_until = self._hello_at + self.ttl
        self._pace(wire.seconds(welcome.heartbeat_in), has_policy=welcome.has_policy)
        for lease_id in welcome.dropped_lease_ids:
            self._lose(lease_id, "dropped")

    def _apply_answers(self, answers: Iterable[pb.Answer]) -> None:
        now = self._clock()
        confirmed = 0
        for answer in answers:
            claim = self._pending.pop(answer.request_id, None)
            if claim is None:
                self._return_stray(answer)
                continue
            confirmed = max(confirmed, claim.sent_in)
            grant = answer.grant
            # A slice: `list` takes twice as long, for it walks until it is told that it is out of bounds.
            lease_ids = grant.lease_ids[:]
            if lease_ids or answer.HasField("grant"):
                self._apply_grant(claim, grant, lease_ids, now)
            elif answer.HasField("denial"):
                self._settle(claim, Denied(wire.denial(answer.denial)))
            else:
                self._settle(claim, _failure(answer.failure))
        self._confirm(confirmed)

    def _apply_grant(self, claim: Claim, grant: pb.Grant, lease_ids: list[int], now: float) -> None:
        claim.lease_ids = lease_ids
        claim.granted_at = now
        if grant.HasField("account"):
            claim.account = wire.granted_account(grant.account)
        if claim.key_sha256 is not None:
            claim.key_id = grant.key_id
        for lease_id in lease_ids:
            self._held[lease_id] = claim
            self._digest.add(lease_id)
        claim.settled = True
        claim.wake()

    def _apply_heartbeat_ack(self, ack: session_pb.HeartbeatAck) -> None:
        sent = self._unacknowledged.pop(ack.sequence, None)
        if sent is not None:
            sent_at, index = sent
            for older in [sequence for sequence in self._unacknowledged if sequence < ack.sequence]:
                del self._unacknowledged[older]
            self._live_until = max(self._live_until, sent_at + self.ttl)
            self._confirm(index)
        self._pace(wire.seconds(ack.heartbeat_in), has_policy=ack.has_policy)
        for lease_id in ack.dropped_lease_ids:
            self._lose(lease_id, "dropped")

    def _pace(self, heartbeat_in: float, *, has_policy: bool) -> None:
        # Only an acknowledgement tells that a policy has come: ask often until it has, so that start-up is quick.
        self.has_policy = has_policy
        self._heartbeat_due = self._clock() + (heartbeat_in if has_policy else min(heartbeat_in, _NO_POLICY_HEARTBEAT))

    def _return_stray(self, answer: pb.Answer) -> None:
        """Gives back what nobody waits for any more; what came a second time is ours already and stays."""
        for lease_id in answer.grant.lease_ids:
            if lease_id not in self._held:
                self._saying.lease_ids.append(lease_id)

    def _confirm(self, index: int) -> None:
        while self._unconfirmed and self._unconfirmed[0].index <= index:
            self._unconfirmed.popleft()

    # --- Claims.

    def _settle(self, claim: Claim, error: AdmissionError | None) -> None:
        claim.settled = True
        claim.error = error
        claim.wake()

    def _forget(self, claim: Claim, error: AdmissionError) -> None:
        """Ends a pending claim from this side. The server hears of it if it may have heard of the claim."""
        self._pending.pop(claim.request_id, None)
        if claim.was_sent:
            self._saying.request_ids.append(claim.request_id)
        elif claim in self._asking:
            self._asking.remove(claim)
        self._settle(claim, error)

    def _give_back(self, lease_id: int) -> None:
        if self._held.pop(lease_id, None) is not None:
            self._digest.remove(lease_id)
            self._saying.lease_ids.append(lease_id)

    def _lose(self, lease_id: int, reason: str) -> None:
        claim = self._held.pop(lease_id, None)
        if claim is None:
            return
        self._digest.remove(lease_id)
        index = claim.lease_ids.index(lease_id)
        claim.lease_ids[index] = 0
        claim.lost = True
        log.warning(
            "lease ended by the server",
            resource=claim.full_name(index),
            request_id=claim.request_id,
            reason=reason,
            held_for=round(self._clock() - claim.granted_at, 3),
        )

    def _end(self, error: AdmissionError) -> None:
        self._ended = error
        self._live_until = float("-inf")
        for claim in list(self._pending.values()):
            self._forget(claim, error)

    def _first_to_give_up(self) -> Claim | None:
        # Pending claims are in the order in which they were asked, so the first one is the first to be given up.
        return None if self._welcomed else next(iter(self._pending.values()), None)

    def _give_up_at(self, claim: Claim) -> float:
        return max(claim.asked_at, self._away_since) + self._unavailable_wait

    def _silent_at(self) -> float:
        if not self._unacknowledged:
            return float("inf")
        sent_at, _ = next(iter(self._unacknowledged.values()))
        return sent_at + self.ttl / 3

    def _next_request_id(self, label: str) -> str:
        """Returns `<label>.<counter in base 36>`. Two digits at a time from a table: this runs once an acquire."""
        self._counter += 1
        high, low = divmod(self._counter, 1296)
        if low == 0:
            self._counter_prefix = _base36(high)
        counter = self._counter_prefix + _DIGIT_PAIRS[low]
        if not label:
            return counter
        return f"{bounds.text(label, _LABEL_BYTES)}.{counter}"


def nobody_waits() -> None:
    """Is called for a claim whose caller does not listen."""


def new_session_id(source: random.Random) -> str:
    """Returns a session id that no other holder has."""
    return f"s{source.getrandbits(128):032x}"


def end_reason(number: int) -> str:
    """Returns a word for logs: "overheld", "forgotten"."""
    try:
        return session_pb.EndReason.Name(number).removeprefix("END_REASON_").lower()
    except ValueError:
        return str(number)


def _failure(failure: pb.Failure) -> AdmissionError:
    retry_after = wire.seconds(failure.retry_after) if failure.HasField("retry_after") else None
    if failure.code == _UNAVAILABLE:
        return AdmissionUnavailable(failure.message, retry_after=retry_after if retry_after is not None else 1.0)
    return AcquireRejected(failure.message, code=failure.code, field=failure.field, retry_after=retry_after)


def _base36(value: int) -> str:
    digits = _DIGITS[value % 36]
    while value := value // 36:
        digits = _DIGITS[value % 36] + digits
    return digits
