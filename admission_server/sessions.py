"""Who holds: sessions, their mail, the comparison of both sides' books, and expiry in buckets. Pure.

* Every message to a session has a number. A grant counts as known to its holder once the holder has *seen* (applied)
  the message that carried it; until then neither side can blame the other for a difference.
* A heartbeat compares count and digest of the leases that are known to both: it costs the same however many there are.
* Answers are remembered until the holder has seen them; answers in messages that a broken stream lost are sent again.
"""

import sys
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from admission_server.decisions import Denied, EndReason, Failed
from admission_server.resources import Granted, Lease

if TYPE_CHECKING:
    from admission_server.waiting import Waiter

MASK = 2**64 - 1
REMEMBERED = 10_000
"""Refusals, and withdrawals, that a session is remembered for."""
ANSWERS_A_MESSAGE = 500
"""Answers that go into one message: a grant with a credential takes up to 4 KB."""


def splitmix64(value: int) -> int:
    """Returns 64 well mixed bits: two sets of lease ids with equal sums of them are equal but by a freak of chance."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


class Withdrawn:
    """Remembers that a request was released by its id: whenever its acquire arrives, it is denied."""

    __slots__ = ()


WITHDRAWN = Withdrawn()


class Departure:
    """A lease that ended without its holder's doing, until the holder has seen that it did."""

    __slots__ = ("granted_in", "number")

    def __init__(self, granted_in: int) -> None:
        self.granted_in = granted_in
        self.number = 0


class Mail:
    """What the next message to a session carries."""

    __slots__ = ("answers", "ended", "number", "send_held")

    def __init__(self, number: int) -> None:
        self.number = number
        self.answers: list[Granted | Denied | Failed] = []
        self.ended: list[tuple[int, EndReason]] = []
        self.send_held = False


class Session:
    """One holder: an edge worker, the control API, a script.

    `known_count` and `known_digest` are over the live leases whose grants the holder has seen; `unseen` has the others.
    """

    __slots__ = (
        "answers",
        "bucket",
        "departures",
        "ended",
        "expires_at",
        "has_mail",
        "instance",
        "known_count",
        "known_digest",
        "lease_limit",
        "leases",
        "number",
        "opened_at",
        "over",
        "refusals",
        "requests",
        "role",
        "seen",
        "send_held",
        "session_id",
        "unary",
        "unseen",
        "waiting",
        "withdrawals",
    )

    def __init__(self, session_id: str, instance: str, role: str, now: float) -> None:
        self.session_id = session_id
        self.instance = instance
        self.role = role
        self.opened_at = now
        self.expires_at = now
        self.bucket = -1
        self.over: EndReason | None = None
        self.unary = False
        self.lease_limit = sys.maxsize
        self.leases: dict[int, Lease] = {}
        self.waiting: dict[str, Waiter] = {}
        self.requests: dict[str, Granted | Denied | Waiter | Withdrawn] = {}
        self.refusals: deque[tuple[int, str]] = deque()
        self.withdrawals: deque[str] = deque()
        self.unseen: dict[str, Granted] = {}
        self.departures: dict[int, Departure] = {}
        self.number = 0
        self.seen = 0
        self.known_count = 0
        self.known_digest = 0
        self.answers: deque[Granted | Denied | Failed] = deque()
        self.ended: list[tuple[int, EndReason]] = []
        self.send_held = False
        self.has_mail = False

    def take_mail(self) -> Mail:
        """Empties the mailbox into the next message and gives it its number."""
        self.number += 1
        mail = Mail(self.number)
        mail.answers = self._stamped_answers(self.number)
        mail.ended, self.ended = self.ended, []
        for lease_id, _ in mail.ended:
            if departure := self.departures.get(lease_id):
                departure.number = self.number
        mail.send_held, self.send_held = self.send_held, False
        self.has_mail = bool(self.answers)
        return mail

    def take_answers(self) -> list[Granted | Denied | Failed]:
        """Empties the mailbox of answers for unary calls: they count as part of the next heartbeat's message."""
        self.has_mail = False
        return self._stamped_answers(self.number + 1)

    def remember_refusal(self, denied: Denied) -> None:
        """Keeps a refusal, so that a repeated acquire gets the same answer, as long as the bound allows."""
        self.requests[denied.request_id] = denied
        while len(self.refusals) > REMEMBERED:
            self._forget(self.refusals.popleft()[1], Denied)

    def remember_withdrawal(self, request_id: str) -> None:
        """Keeps that a request was withdrawn, for when its acquire arrives after its release. No message that the
        holder has seen tells that it cannot arrive any more, so only the bound ends this memory.
        """
        self.requests[request_id] = WITHDRAWN
        self.withdrawals.append(request_id)
        if len(self.withdrawals) > REMEMBERED:
            self._forget(self.withdrawals.popleft(), Withdrawn)

    def acknowledge(self, seen: int) -> None:
        """Takes note that the holder has applied every message up to `seen`."""
        self.seen = max(self.seen, min(seen, self.number))
        for request_id, grant in list(self._grants_up_to(self.seen)):
            del self.unseen[request_id]
            grant.confirmed = True
            for lease in grant.leases:
                if not lease.ended:
                    self.known_count += 1
                    self.known_digest += splitmix64(lease.lease_id)
        self.known_digest &= MASK
        if not self.unseen:
            # A dict keeps the room of what was deleted from it, and a walk over it costs that room: after 100,000
            # grants a heartbeat took 110 µs instead of 2.7 (benchmarks/bare_ledger.py).
            self.unseen.clear()
        while self.refusals and self.refusals[0][0] <= self.seen:
            self._forget(self.refusals.popleft()[1], Denied)
        for lease_id in [i for i, gone in self.departures.items() if 0 < gone.number <= self.seen]:
            del self.departures[lease_id]
        if not self.departures:
            self.departures.clear()

    def agrees(self, *, count: int, digest: int) -> bool:
        """Returns whether the holder's books, as of the last `acknowledge`, are equal to ours.

        Leases that ended here in messages that it has not seen yet are still in its books.
        """
        for lease_id, gone in self.departures.items():
            if gone.granted_in <= self.seen:
                count -= 1
                digest -= splitmix64(lease_id)
        return count == self.known_count and digest & MASK == self.known_digest

    def strike(self, lease: Lease, *, holder_counts_it: bool) -> None:
        """Takes a lease out of the books. The holder counts it on until it is told, unless it released it itself."""
        del self.leases[lease.lease_id]
        grant = lease.grant
        if grant.confirmed:
            self.known_count -= 1
            self.known_digest = (self.known_digest - splitmix64(lease.lease_id)) & MASK
        if holder_counts_it and grant.number:
            self.departures[lease.lease_id] = Departure(grant.number)
        grant.open_leases -= 1
        if not grant.open_leases:
            if not grant.confirmed:
                self.unseen.pop(grant.request_id, None)
            if self.requests.get(grant.request_id) is grant:
                del self.requests[grant.request_id]

    def adopt(self, lease: Lease) -> None:
        """Counts a lease that the holder claimed: it is in both books at once."""
        self.known_count += 1
        self.known_digest = (self.known_digest + splitmix64(lease.lease_id)) & MASK
        self.requests.setdefault(lease.grant.request_id, lease.grant)

    def resend_after(self, seen: int) -> None:
        """Puts what messages after `seen` carried into the mailbox again: a broken stream may have lost them."""
        for grant in list(self.unseen.values()):
            if grant.number > seen:
                self.answers.append(grant)
        for number, request_id in list(self.refusals):
            denied = self.requests.get(request_id)
            if number > seen and type(denied) is Denied:
                self.answers.append(denied)
        while self.refusals and self.refusals[-1][0] > seen:
            self.refusals.pop()
        told = {lease_id for lease_id, _ in self.ended}
        self.ended.extend(
            (lease_id, EndReason.OVERHELD)
            for lease_id, gone in self.departures.items()
            if gone.number > seen and lease_id not in told
        )

    def _stamped_answers(self, number: int) -> list[Granted | Denied | Failed]:
        taken: list[Granted | Denied | Failed] = []
        while self.answers and len(taken) < ANSWERS_A_MESSAGE:
            answer = self.answers.popleft()
            if type(answer) is Granted:
                answer.number = number
                if answer.open_leases and not answer.confirmed:
                    self.unseen.pop(answer.request_id, None)
                    self.unseen[answer.request_id] = answer
            elif type(answer) is Denied and self.requests.get(answer.request_id) is answer:
                self.refusals.append((number, answer.request_id))
            taken.append(answer)
        return taken

    def _grants_up_to(self, seen: int) -> Iterable[tuple[str, Granted]]:
        for request_id, grant in self.unseen.items():
            if grant.number > seen:
                return
            yield request_id, grant

    def _forget(self, request_id: str, kind: type[Denied] | type[Withdrawn]) -> None:
        if type(self.requests.get(request_id)) is kind:
            del self.requests[request_id]


class Buckets:
    """Sessions by when they end, in buckets of time: renewing one moves it, ending the due looks at the due only."""

    __slots__ = ("_buckets", "_width")

    def __init__(self, *, width: float) -> None:
        self._width = width
        self._buckets: dict[int, dict[str, Session]] = {}

    def put(self, session: Session, expires_at: float) -> None:
        """Sets when a session ends unless it is renewed."""
        session.expires_at = expires_at
        bucket = int(expires_at / self._width) + 1
        if bucket != session.bucket:
            self.remove(session)
            self._buckets.setdefault(bucket, {})[session.session_id] = session
            session.bucket = bucket

    def remove(self, session: Session) -> None:
        """Forgets a session."""
        members = self._buckets.get(session.bucket)
        if members is not None:
            members.pop(session.session_id, None)
            if not members:
                del self._buckets[session.bucket]
        session.bucket = -1

    def due(self, now: float) -> list[Session]:
        """Returns the sessions whose time is up, oldest first. They stay until they are removed."""
        current = int(now / self._width)
        ready = sorted(bucket for bucket in self._buckets if bucket <= current)
        return [session for bucket in ready for session in self._buckets[bucket].values()]
