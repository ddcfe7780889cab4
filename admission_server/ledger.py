"""Every rule about granting a seat and taking it back lives here. Nothing here waits, and nothing here does IO.

The rules, in the order in which an acquire meets them:

1. One request id, one answer: a repeated acquire is answered as before; one that was released before it came is denied.
2. While holders of before a restart are missing, and before the first policy, acquires are put aside for a few seconds.
3. All seats of an acquire are granted together or none is. A seat is granted only while `held + 1 <= limit`.
4. Who finds no room waits for the first resource, in request order, that has none; for "accounts/-/…" when no eligible
   account has room for all of them. Waiting ends when that resource's `max_wait`, counted from arrival, is over.
5. A seat that comes back goes to those who wait for it, fairest first (`queueing`), before anybody new can ask.
6. A session that is silent for TTL + grace ends, and everything it held comes back at once. There is no other deadline.
7. What a holder still runs after a lapse or a restart is taken back into the books even above a limit (overdraft);
   nothing new is granted until it is gone.

The clock is passed in. Of a pause of the process only half a second counts: `tick` notices such gaps. What should
happen next is left in mailboxes (`take_mail`) and in `take_events`; the caller delivers it.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from admission_server.accounts import NEVER, NOTHING, Account, Report, Standing, Verdict
from admission_server.catalogue import BadName, Catalogue, Change, Part
from admission_server.decisions import (
    Acquire,
    Denied,
    EndReason,
    Failed,
    Heartbeat,
    HeldLease,
    HeldList,
    Reason,
)
from admission_server.events import Event, GivenUp, LeaseReclaimed, Refused, Resynced, SessionEnded
from admission_server.policy import KEY_FAMILY, PolicyDelta, PolicySnapshot
from admission_server.queueing import FairQueue, WaitingRoom
from admission_server.resources import Family, Granted, Holdings, Kind, Lease, Resource
from admission_server.selection import NO_NEEDS, Pick, Pool, Unservable
from admission_server.sessions import Buckets, Session, Withdrawn
from admission_server.waiting import Waiter, family_of, refusal

BUCKET = 0.25
PAUSE = 0.5
"""What a gap between two ticks is longer than this, was a pause of the process: nobody could have been heard in it."""
OVERHELD_EVERY = 1.0
REMEMBERED_SESSIONS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The numbers that sessions live by, and the bounds on what holders can make grow."""

    ttl: float = 15.0
    grace: float = 2.0
    heartbeat: float = 5.0
    park: float = 5.0
    """Longest that an acquire is put aside while the server cannot decide yet."""
    sessions: int = 5_000
    session_leases: int = 10_000
    unary_leases: int = 1_000
    """Most of a session without a stream: each of its heartbeats names them all."""
    session_waiters: int = 2_000
    waiters: int = 20_000
    flow_waiters: int = 500
    """Most acquires of one flow that wait for one resource."""


class SessionRefused(Exception):
    """A session cannot be opened: it was superseded (`reason`), there are too many (`full`), its calls are of the other
    kind (`mixed`), or its role is another.
    """

    def __init__(
        self, message: str, *, reason: EndReason | None = None, full: bool = False, mixed: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.full = full
        self.mixed = mixed


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A session was opened or resumed."""

    session: Session
    resumed: bool
    dropped: tuple[int, ...] = ()
    """Leases of the holder's list that are not its leases any more."""


Blocker = Resource | Pool | Unservable
"""What stands in the way of an acquire."""
Place = tuple[FairQueue[Waiter], Callable[[], bool]]
"""A queue, and whether anybody in it might be served now."""


class Ledger:
    """Sessions, the seats they hold, and the acquires that wait."""

    def __init__(
        self,
        *,
        epoch: int,
        clock: Callable[[], float],
        random: Random,
        terms: Terms,
        remembered: Mapping[str, str] | None = None,
    ) -> None:
        """`remembered` are the sessions that were open before a restart, with their instances."""
        self.epoch = epoch
        self.terms = terms
        self.sessions: dict[str, Session] = {}
        self.started_at = self._last_tick = self._overheld_at = clock()
        self.catalogue = Catalogue(random=random)
        self.recovering: dict[str, str] = dict(remembered or {})
        self.recovered_by = self.started_at + terms.ttl + terms.grace
        self.draining = False
        self.overloaded = False
        self.mismatches = 0
        self.denied: dict[Reason, int] = {}
        """Refusals of acquires whose first resource no policy has named."""
        self.adopted = 0
        self.reclaimed: dict[EndReason, int] = {}
        self.ended: dict[EndReason, int] = {}
        self._clock = clock
        self._paused_for = 0.0
        self._random = random
        self._last_id = epoch << 40
        self._arrivals = 0
        self._instances: dict[str, Session] = {}
        # With the number of the last message to it: numbers count on over a lapse, or `seen` would mean two things.
        self._lapsed: OrderedDict[str, int] = OrderedDict()
        self._superseded: OrderedDict[str, int] = OrderedDict()
        self._buckets = Buckets(width=BUCKET)
        self._waiters = 0
        self._claimed: list[Lease] = []
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._parked: FairQueue[Waiter] = Holdings().queue()
        self._mail: list[Session] = []
        self._events: list[Event] = []

    # --- what happened and is to be delivered ------------------------------------------------------------------------

    def now(self) -> float:
        """Returns the time as deadlines count it: without the time in which this process was paused.

        After a pause it stands still until the next tick: a deadline that was made with the time of a pause in it would
        be too late by the length of the pause.
        """
        clock = self._clock()
        if clock - self._last_tick > PAUSE:
            clock = self._last_tick + PAUSE
        return clock - self._paused_for

    def take_mail(self) -> list[Session]:
        """Returns the sessions that got mail since the last call; `Session.take_mail` empties a mailbox."""
        mail, self._mail = self._mail, []
        return mail

    def take_events(self) -> list[Event]:
        """Returns what happened since the last call, for logs and for closing streams."""
        events, self._events = self._events, []
        return events

    @property
    def waiting(self) -> int:
        """How many acquires have no answer yet."""
        return self._waiters

    # --- sessions ----------------------------------------------------------------------------------------------------

    def open(
        self,
        session_id: str,
        *,
        instance: str,
        role: str,
        held: HeldList | None = None,
        epoch: int | None = None,
        unary: bool = False,
    ) -> Opened:
        """Opens a session, or resumes it on a new stream. Raises `SessionRefused`.

        A known instance with a new session id ends its old session at once. Leases of `held` are taken back into the
        books when the session has lapsed, or they are from before a restart; otherwise they are dropped. `epoch` is the
        one that the holder was welcomed in last (None: this one): of another one, its `seen` counts for nothing.
        """
        now = self.now()
        if session_id in self._superseded:
            raise SessionRefused("a newer session of this instance exists", reason=EndReason.SUPERSEDED)
        session = self.sessions.get(session_id)
        if session is not None:
            if (session.instance, session.role) != (instance, role):
                raise SessionRefused("this session belongs to another instance or role")
            if session.unary != unary:
                raise SessionRefused("unary calls and a stream do not mix in a session", mixed=True)
            self.renew(session)
            if held is not None and epoch not in (None, self.epoch):
                held = replace(held, seen=0)
            seen = held.seen if held is not None else session.seen
            dropped = self._resync(session, held, now) if held is not None else ()
            session.resend_after(seen)
            self._post(session)
            return Opened(session=session, resumed=True, dropped=dropped)
        old = self._instances.get(instance)
        if old is not None and old.role != role:
            raise SessionRefused("this instance belongs to another role")
        self._supersede(instance)
        if len(self.sessions) >= self.terms.sessions:
            raise SessionRefused(f"there are {len(self.sessions)} sessions already", full=True)
        session = self.sessions[session_id] = Session(session_id, instance, role, now)
        session.unary = unary
        session.lease_limit = (
            min(self.terms.session_leases, self.terms.unary_leases) if unary else self.terms.session_leases
        )
        self._instances[instance] = session
        self.renew(session)
        # Who lapsed before a restart is known to nobody now. Its streams run all the same: better counted than not.
        older = self.epoch if session_id not in self._lapsed else self.epoch + 1
        session.number = self._lapsed.pop(session_id, 0)
        dropped = self._resync(session, held, now, claims_before=older) if held is not None else ()
        self._back(session_id)
        return Opened(session=session, resumed=False, dropped=dropped)

    def renew(self, session: Session) -> None:
        """Notes that a session was heard of. One that is over stays so: its stream may still be read for a moment."""
        if session.over is None:
            self._buckets.put(session, self.now() + self.terms.ttl + self.terms.grace)

    def heartbeat(self, session: Session, heartbeat: Heartbeat) -> tuple[int, ...]:
        """Renews a session and compares books. Returns the leases of a complete list that are not the holder's.

        It costs the same however many leases there are; the first difference asks for the complete list.
        """
        self.renew(session)
        if heartbeat.held is not None:
            return self._resync(session, heartbeat.held, self.now())
        session.acknowledge(heartbeat.seen)
        if not session.agrees(count=heartbeat.lease_count, digest=heartbeat.lease_digest):
            self.mismatches += 1
            session.send_held = True
            self._post(session)
        return ()

    def heartbeat_by_list(self, session: Session, lease_ids: Sequence[int]) -> list[tuple[int, EndReason]]:
        """Renews a session of unary calls. What it does not name, although it was granted before its last heartbeat, is
        taken back. Returns what ended without its doing, and what it named and does not hold.
        """
        self.renew(session)
        now = self.now()
        named = set(lease_ids)
        for lease in [lease for i, lease in session.leases.items() if i not in named and lease.grant.confirmed]:
            self._reclaim(lease, EndReason.LEAKED, now, holder_counts_it=False)
        mail = session.take_mail()
        ended = dict(mail.ended)
        for lease_id in named - session.leases.keys():
            ended.setdefault(lease_id, EndReason.RELEASED)
        session.acknowledge(session.number)
        return list(ended.items())

    def close(self, session: Session) -> int:
        """Ends a session in order. Returns how many leases ended with it."""
        return self._end_session(session, EndReason.RELEASED) if session.over is None else 0

    def forget(self, session_id: str) -> int | None:
        """Ends a session by hand, also one that is missing since a restart. Returns how many leases ended, None for a
        session that is unknown. Its holder may come back and claim what it still runs, as after a lapse.
        """
        session = self.sessions.get(session_id)
        if session is not None:
            return self._end_session(session, EndReason.FORGOTTEN)
        if session_id not in self.recovering:
            return None
        self._give_up(session_id)
        return 0

    # --- acquire and release -----------------------------------------------------------------------------------------

    def acquire(self, session: Session, acquire: Acquire) -> None:
        """Decides an acquire, or lets it wait. The answer comes by the session's mailbox."""
        known = session.requests.get(acquire.request_id)
        if known is not None:
            self._answer_again(session, acquire, known)
            return
        now = self.now()
        if self.overloaded or self.draining or session.over or self.recovering or not self.catalogue.version:
            self._refuse_or_park(session, acquire, now)
            return
        waiter = Waiter(0, session, acquire, now)
        if self._resolve(waiter, now):
            outcome = self._attempt(waiter, now)
            if not isinstance(outcome, Granted):
                self._wait_or_deny(waiter, outcome, now)

    def refuse(self, session: Session, failed: Failed) -> None:
        """Answers an acquire that could not even be read."""
        self._post(session, failed)

    def release(self, session: Session, lease_ids: Iterable[int] = (), request_id: str = "") -> int:
        """Gives seats back, by lease or all of an acquire. Returns how many leases ended.

        What is unknown or released already is fine. A request that is unknown is remembered: its acquire is on its way.
        """
        now = self.now()
        ended = 0
        for lease_id in lease_ids:
            lease = session.leases.get(lease_id)
            if lease is None:
                session.departures.pop(lease_id, None)
                continue
            self._end_lease(lease, now, holder_counts_it=False)
            self._wake(lease.resource, now)
            # Lease and grant name each other. Without this both wait for the garbage collector, whose rounds were the
            # longest pauses that anybody met: 7 to 10 ms, at 70,000 cycles a second four times a second.
            del lease.grant
            ended += 1
        if request_id:
            ended += self._withdraw(session, request_id, now)
        return ended

    def report(self, report: Report) -> Verdict:
        """Applies what a holder has seen of an account, at once. Returns what the controller should be told."""
        selector = self.catalogue.selector
        account = selector.accounts.get(report.account_id)
        if account is None:
            return NOTHING
        now = self.now()
        if report.owned_keys:
            key = self.catalogue.key(report.key_sha256) if report.key_sha256 else None
            if key is not None or not report.key_sha256:
                selector.own(key.key_id if key else "", report.owned_keys, account.account_id, now)
        verdict = account.apply(report, now)
        if verdict.concerns_status or account.serving != (account.standing(now)[0] is Standing.SERVING):
            self._account_changed(account, now)
        return verdict

    # --- policy and time ---------------------------------------------------------------------------------------------

    def apply_snapshot(self, snapshot: PolicySnapshot, *, acknowledged: Iterable[str] = ()) -> None:
        """Replaces the policy as a whole. Raises `PolicyError`, and then nothing has changed."""
        now = self.now()
        self._after_policy(self.catalogue.apply_snapshot(snapshot, now, acknowledged=acknowledged), now)

    def apply_delta(self, delta: PolicyDelta, *, acknowledged: Iterable[str] = ()) -> None:
        """Changes the policy as a whole. Raises `PolicyError`, and then nothing has changed."""
        now = self.now()
        self._after_policy(self.catalogue.apply_delta(delta, now, acknowledged=acknowledged), now)

    def has_silent_sessions(self, by: float) -> bool:
        """Returns whether a tick would end a session whose time is up by then: what has arrived from it should be read
        before.
        """
        return bool(self._buckets.due(by))

    def tick(self, *, read_at: float = NEVER) -> None:
        """Does what time does: call it several times a second. Sessions end only if their time was up at `read_at`,
        after which whatever had arrived was read.
        """
        clock = self._clock()
        # Of a pause, so much counts all the same: for a server that is late all the time, time must not stand still.
        self._paused_for += max(0.0, clock - self._last_tick - PAUSE)
        self._last_tick = clock
        now = self.now()
        if self.recovering and now >= self.recovered_by:
            for session_id in list(self.recovering):
                self._give_up(session_id)
        for account in self.catalogue.selector.due(now):
            self._wake_account(account, now)
        while self._deadlines and self._deadlines[0][0] <= now:
            self._time_out(*heapq.heappop(self._deadlines), now)
        for session in self._buckets.due(min(now, read_at)):
            self._end_session(session, EndReason.EXPIRED)
        if now >= self._overheld_at:
            self._overheld_at = now + OVERHELD_EVERY
            self._end_overheld(now)

    def drain(self) -> None:
        """Answers everybody who waits, and whoever asks from now on, that the server is stopping."""
        self.draining = True
        for session in self.sessions.values():
            for waiter in list(session.waiting.values()):
                self._deny(waiter, Reason.DRAINING, self.now())

    # --- deciding ----------------------------------------------------------------------------------------------------

    def _answer_again(self, session: Session, acquire: Acquire, known: "Granted | Denied | Waiter | Withdrawn") -> None:
        if type(known) is Withdrawn:
            self._count_denial(self.catalogue.families.get(acquire.resources[0]), Reason.WITHDRAWN)
            self._post(session, Denied(request_id=acquire.request_id, reason=Reason.WITHDRAWN))
        elif type(known) is not Waiter:
            self._post(session, known)  # type: ignore[arg-type]  # what is left is an answer

    def _refuse_or_park(self, session: Session, acquire: Acquire, now: float) -> None:
        waiter = Waiter(0, session, acquire, now)
        if session.over:
            self._deny(waiter, Reason.SESSION_STALE, now)
        elif self.draining:
            self._deny(waiter, Reason.DRAINING, now)
        elif self.overloaded:
            self._deny(waiter, Reason.SERVER_OVERLOADED, now)
        else:
            patience = self.terms.park if acquire.max_wait is None else min(self.terms.park, acquire.max_wait)
            self._enqueue(waiter, self._parked, None, min(now + patience, self._undecided_until(now)), now)

    def _undecided_until(self, now: float) -> float:
        # Before the first policy, a controller that starts together with us is given the time that holders are.
        return self.recovered_by if self.recovering or now < self.recovered_by else now

    def _resolve(self, waiter: Waiter, now: float) -> bool:
        """Looks up who competes for what. Answers the acquire, and returns False, when it cannot be granted ever."""
        acquire, session = waiter.acquire, waiter.session
        key = None
        if acquire.key_sha256:
            key = self.catalogue.key(acquire.key_sha256)
            if key is None:
                return self._deny(waiter, Reason.KEY_UNKNOWN, now)
            if key.expires_at is not None and now >= key.expires_at:
                return self._deny(waiter, Reason.KEY_EXPIRED, now)
            if (
                key.models
                and acquire.needs is not None
                and acquire.needs.model
                and acquire.needs.model not in key.models
            ):
                return self._deny(waiter, Reason.MODEL_NOT_ALLOWED, now)
            waiter.flow = key.flow
        elif acquire.peer:
            waiter.flow = f"peer:{acquire.peer}"
        else:
            waiter.flow = f"self:{session.instance}"
        waiter.key = key
        try:
            waiter.shape = self.catalogue.shape(acquire.resources)
        except BadName as error:
            return self._fail(waiter, error.index, str(error))
        if key is None and KEY_FAMILY in acquire.resources:
            return self._fail(waiter, acquire.resources.index(KEY_FAMILY), "needs a key_sha256")
        return True

    def _attempt(self, waiter: Waiter, now: float) -> Granted | Blocker:
        """Grants all seats, or returns the first thing, in request order, that stands in the way."""
        shape, acquire = waiter.shape, waiter.acquire
        if len(waiter.session.leases) + len(shape.parts) > waiter.session.lease_limit:
            return Unservable(Reason.SESSION_FULL)
        if shape.fixed is not None:
            blocker = self._first_full(shape.fixed, waiter)
            return blocker or self._grant(waiter, shape.fixed, None, now)
        key = waiter.key
        own = key.resources if key is not None else {}
        before = _filled_in(shape.before, own)
        blocker = self._first_full(before, waiter)
        if blocker is not None or not shape.families:
            return blocker or self._grant(waiter, before, None, now)
        selector = self.catalogue.selector
        needs = acquire.needs or NO_NEEDS
        choice = selector.choose(needs, key, shape.families, now)
        if not isinstance(choice, Pick):
            return choice
        blocker = self._first_full(_filled_in(shape.after, own), waiter) if shape.after else None
        if blocker is not None:
            return blocker
        granted = self._grant(waiter, _filled_in(shape.parts, own | choice.account.resources), choice, now)
        selector.served(choice, needs, key, now)
        return granted

    def _first_full(self, resources: Sequence[Resource], waiter: Waiter) -> Resource | Unservable | None:
        for resource in resources:
            held = len(resource.leases)
            ordinary, reattaching = resource.ceilings
            if held >= ordinary and (held >= reattaching or not waiter.reattaches):
                return resource
            if held >= resource.fair_from and resource.exceeds_share(waiter.flow):
                return Unservable(Reason.FAIR_SHARE, at=resource)
        return None

    def _grant(self, waiter: Waiter, resources: Sequence[Resource], choice: Pick | None, now: float) -> Granted:
        session, acquire = waiter.session, waiter.acquire
        granted = Granted(acquire.request_id, waiter.flow, now)
        if waiter.key is not None:
            granted.key_id = waiter.key.key_id
        if choice is not None:
            granted.account = choice.account
            granted.account_id = choice.account.account_id
            granted.credential = choice.account.credential
            granted.owner_moved = choice.owner_moved
        for resource in resources:
            self._last_id += 1
            self._seat(Lease(self._last_id, resource, session, granted))
            resource.family.granted += 1
        if choice is not None:
            granted.streams_held = len(next(iter(choice.account.resources.values())).leases)
        if waiter.queue is None:
            resources[0].family.waits.counts[0] += 1
        else:
            resources[0].family.waits.observe(now - waiter.arrived)
            self._leave(waiter)
        session.requests[acquire.request_id] = granted
        self._post(session, granted)
        return granted

    def _seat(self, lease: Lease) -> None:
        resource = lease.resource
        lease.grant.leases.append(lease)
        lease.grant.open_leases += 1
        resource.leases[lease.lease_id] = lease
        resource.holdings.add(lease)
        lease.session.leases[lease.lease_id] = lease
        if resource.account is not None:
            for pool in resource.account.pools:
                pool.stale.add(resource.account)

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _wait_or_deny(self, waiter: Waiter, blocker: Blocker, now: float) -> None:
        """Puts an acquire where it waits (or leaves it there), or denies it when its time is over."""
        at = blocker.at if isinstance(blocker, Unservable) else blocker
        deadline = waiter.arrived + self._patience(waiter, blocker)
        paused = isinstance(at, Resource) and at.settings.paused
        if (
            at is None
            or paused
            or deadline <= now
            or (isinstance(blocker, Unservable) and blocker.changes_at > deadline)
        ):
            self._deny_blocked(waiter, blocker, now)
            return
        if isinstance(at, Pool):
            queue = at.room.queue(self.catalogue.selector.avoided(waiter.acquire.needs or NO_NEEDS, at))
            crowd: FairQueue[Waiter] | WaitingRoom[frozenset[Account], Waiter] = at.room
        else:
            queue = crowd = at.queues[waiter.reattaches]
        comes_anew = waiter.queue is None or waiter.at is None
        full = comes_anew and len(crowd) >= self._queue_limit(at)
        if full or (comes_anew and crowd.is_crowded(waiter.flow, self.terms.flow_waiters)):
            self._deny(waiter, Reason.QUEUE_FULL, now, at=at)
            return
        if queue is not waiter.queue or deadline != waiter.deadline:
            self._enqueue(waiter, queue, at, deadline, now)

    def _patience(self, waiter: Waiter, blocker: Blocker) -> float:
        at = blocker.at if isinstance(blocker, Unservable) else blocker
        if isinstance(at, Pool):
            patience = at.blocking_family().defaults.max_wait
        else:
            patience = at.max_wait if at is not None else 0.0
        most = waiter.acquire.max_wait
        return patience if most is None else min(patience, most)

    def _queue_limit(self, at: Resource | Pool) -> int:
        if isinstance(at, Resource):
            return at.queue_limit
        return at.blocking_family().queue_limit

    def _enqueue(
        self, waiter: Waiter, queue: "FairQueue[Waiter]", at: Resource | Pool | None, deadline: float, now: float
    ) -> None:
        session = waiter.session
        if waiter.queue is None:
            if self._waiters >= self.terms.waiters:
                self._deny(waiter, Reason.QUEUE_FULL, now, at=at)
                return
            if len(session.waiting) >= self.terms.session_waiters:
                self._deny(waiter, Reason.SESSION_FULL, now)
                return
            self._arrivals += 1
            waiter.seq = self._arrivals
            self._waiters += 1
            session.waiting[waiter.acquire.request_id] = waiter
            session.requests[waiter.acquire.request_id] = waiter
            queue.add(waiter)
        elif waiter.queue is not queue:
            waiter.queue.remove(waiter)
            queue.add(waiter)
        waiter.queue, waiter.at, waiter.deadline = queue, at, deadline
        heapq.heappush(self._deadlines, (deadline, waiter.seq, waiter))
        if len(self._deadlines) > 2 * self._waiters + 1_000:
            self._deadlines = [entry for entry in self._deadlines if entry[2].deadline == entry[0] and entry[2].queue]
            heapq.heapify(self._deadlines)

    def _leave(self, waiter: Waiter) -> None:
        if waiter.queue is not None:
            waiter.queue.remove(waiter)
            waiter.queue = None
            self._waiters -= 1
            del waiter.session.waiting[waiter.acquire.request_id]

    def _fail(self, waiter: Waiter, index: int, message: str) -> bool:
        self._forget_waiter(waiter)
        failed = Failed(request_id=waiter.acquire.request_id, field=f"resources[{index}]", message=message)
        self._post(waiter.session, failed)
        return False

    def _forget_waiter(self, waiter: Waiter) -> None:
        self._leave(waiter)
        if waiter.session.requests.get(waiter.acquire.request_id) is waiter:
            del waiter.session.requests[waiter.acquire.request_id]

    def _wake(self, resource: Resource, now: float) -> None:
        """A seat of a resource is free: serves those who wait for it."""
        account = resource.account
        if not resource.holdings.contested and (account is None or not any(pool.room for pool in account.pools)):
            return
        places = _doors(resource)
        if account is not None:
            if not account.serving:
                return  # its seats help nobody; when that changes, all who wait for it are looked at
            places += [(queue, _way_in(pool, avoid)) for pool in account.pools for avoid, queue in pool.room.queues()]
        self._serve(places, now)

    def _wake_account(self, account: Account, now: float) -> None:
        """An account has changed: looks again at those who wait for it, or for one of a pool it is in."""
        places: list[Place] = []
        for resource in account.resources.values():
            # While it serves, nothing changes for those who wait for a seat. When it does not, each may go elsewhere.
            places += _doors(resource) if account.serving else [(queue, _always) for queue in resource.queues if queue]
        for pool in account.pools:
            for avoid, queue in pool.room.queues():
                if pool.is_served(avoid):
                    places.append((queue, _way_in(pool, avoid)))
                else:
                    self._settle_unserved(pool, queue, now)
        self._serve(places, now)

    def _settle_unserved(self, pool: Pool, queue: "FairQueue[Waiter]", now: float) -> None:
        """Denies those in this queue whose time is over before anybody can serve them. One look answers for all."""
        why = self.catalogue.selector.nobody(pool, now)
        if why.at is not None and why.changes_at <= now:
            return
        for waiter in queue.waiters():
            if why.at is None or why.changes_at > waiter.deadline:
                self._deny_blocked(waiter, why, now)

    def _serve(self, places: "Sequence[Place]", now: float) -> None:
        """Grants to those in these queues, fairest first, until nobody in them can be served.

        Who cannot be served although there is room (it avoids the account that has it) is passed over, not waited for.
        """
        passed: list[tuple[FairQueue[Waiter], Waiter]] = []
        while True:
            first: Waiter | None = None
            rank = (0, 0)
            for queue, is_open in places:
                head = queue.head()
                if head is not None and (first is None or queue.head_rank() < rank) and is_open():
                    first, rank = head, queue.head_rank()
            if first is None:
                break
            queue = first.queue  # type: ignore[assignment]  # who is at the head of a queue is in one
            outcome = self._attempt(first, now)
            if isinstance(outcome, Granted):
                continue
            self._wait_or_deny(first, outcome, now)
            if first.queue is queue:
                queue.remove(first)
                passed.append((queue, first))
        for queue, waiter in passed:
            queue.add(waiter)

    def _time_out(self, deadline: float, _seq: int, waiter: Waiter, now: float) -> None:
        if waiter.queue is None or waiter.deadline != deadline:
            return
        if waiter.at is None:
            if self.recovering:
                self._deny(waiter, Reason.RECOVERING, now, until=self.recovered_by)
            else:
                self._deny(waiter, Reason.POLICY_UNAVAILABLE, now)
            return
        outcome = self._attempt(waiter, now)
        if not isinstance(outcome, Granted):
            self._wait_or_deny(waiter, outcome, now)

    def _withdraw(self, session: Session, request_id: str, now: float) -> int:
        known = session.requests.get(request_id)
        ended = 0
        if type(known) is Waiter:
            self._forget_waiter(known)
        elif type(known) is Granted:
            for lease in known.leases:
                if not lease.ended:
                    self._end_lease(lease, now, holder_counts_it=False)
                    self._wake(lease.resource, now)
                    ended += 1
        if type(known) is not Withdrawn:
            session.remember_withdrawal(request_id)
        return ended

    # --- denying -----------------------------------------------------------------------------------------------------

    def _deny_blocked(self, waiter: Waiter, blocker: Blocker, now: float) -> None:
        if isinstance(blocker, Unservable):
            self._deny(waiter, blocker.reason, now, at=blocker.at, until=blocker.until)
        elif isinstance(blocker, Pool):
            self._deny(waiter, blocker.blocking_family().full_reason, now, at=blocker)
        elif blocker.settings.paused:
            self._deny(waiter, Reason.PAUSED, now, at=blocker)
        else:
            hard = blocker.family.kind is Kind.ACCOUNT and waiter.is_hard
            self._deny(waiter, Reason.OWNER_BUSY if hard else blocker.family.full_reason, now, at=blocker)

    def _deny(
        self,
        waiter: Waiter,
        reason: Reason,
        now: float,
        *,
        at: Resource | Pool | None = None,
        until: float = NEVER,
    ) -> bool:
        """Answers no. Returns False, for those who return whether to go on."""
        waited_ahead = waiter.queue is not None
        self._leave(waiter)
        denied = refusal(waiter, reason, at=at, until=until, now=now, random=self._random)
        session = waiter.session
        session.remember_refusal(denied)
        family = family_of(at) or self.catalogue.families.get(waiter.acquire.resources[0])
        self._count_denial(family, reason)
        if family is not None and waited_ahead:
            family.waits.observe(now - waiter.arrived)
        self._post(session, denied)
        self._events.append(Refused(session, denied))
        return False

    def _count_denial(self, family: Family | None, reason: Reason) -> None:
        denied = self.denied if family is None else family.denied
        denied[reason] = denied.get(reason, 0) + 1

    # --- ending ------------------------------------------------------------------------------------------------------

    def _end_lease(self, lease: Lease, now: float, *, holder_counts_it: bool) -> None:
        """Takes a lease out of all books. Whoever waits for its seat is to be woken by the caller."""
        resource = lease.resource
        lease.ended = True
        del resource.leases[lease.lease_id]
        resource.holdings.remove(lease)
        lease.session.strike(lease, holder_counts_it=holder_counts_it)
        resource.family.holds.observe(now - lease.grant.granted_at)
        resource.turnover.released(now)
        account = resource.account
        if account is not None:
            for pool in account.pools:
                pool.stale.add(account)
                if resource.family is pool.families[0]:
                    pool.turnover.released(now)
        elif not resource.leases and resource.settings.paused:
            self.catalogue.forget_unused(resource)

    def _reclaim(self, lease: Lease, reason: EndReason, now: float, *, holder_counts_it: bool) -> None:
        self._end_lease(lease, now, holder_counts_it=holder_counts_it)
        self.reclaimed[reason] = self.reclaimed.get(reason, 0) + 1
        session = lease.session
        session.ended.append((lease.lease_id, reason))
        self._post(session)
        self._events.append(LeaseReclaimed(lease, reason, now - lease.grant.granted_at))
        self._wake(lease.resource, now)

    def _end_overheld(self, now: float) -> None:
        # Those that were claimed stand behind younger ones, so they are looked at one by one.
        self._claimed = [lease for lease in self._claimed if not lease.ended]
        for lease in self._claimed:
            longest = lease.resource.settings.max_hold
            if longest and not lease.ended and now - lease.grant.granted_at > longest:
                self._reclaim(lease, EndReason.OVERHELD, now, holder_counts_it=True)
        for resource in list(self.catalogue.resources.values()):
            longest = resource.settings.max_hold
            # Leases stand in the order in which they were granted: the first that may go on ends the search.
            while longest and resource.leases:
                oldest = next(iter(resource.leases.values()))
                if now - oldest.grant.granted_at <= longest:
                    break
                self._reclaim(oldest, EndReason.OVERHELD, now, holder_counts_it=True)

    def _end_session(self, session: Session, reason: EndReason) -> int:
        now = self.now()
        session.over = reason
        self._buckets.remove(session)
        del self.sessions[session.session_id]
        if self._instances.get(session.instance) is session:
            del self._instances[session.instance]
        if reason is EndReason.SUPERSEDED:
            _remember(self._superseded, session.session_id)
        elif reason is not EndReason.RELEASED:
            _remember(self._lapsed, session.session_id, session.number)
        for waiter in list(session.waiting.values()):
            self._deny(waiter, Reason.SESSION_STALE, now)
        leases = list(session.leases.values())
        for lease in leases:
            self._end_lease(lease, now, holder_counts_it=False)
        if reason is not EndReason.RELEASED:
            self.reclaimed[reason] = self.reclaimed.get(reason, 0) + len(leases)
        self.ended[reason] = self.ended.get(reason, 0) + 1
        self._events.append(SessionEnded(session, reason, len(leases)))
        for resource in {lease.resource.name: lease.resource for lease in leases}.values():
            self._wake(resource, now)
        return len(leases)

    def _supersede(self, instance: str) -> None:
        old = self._instances.get(instance)
        if old is not None:
            self._end_session(old, EndReason.SUPERSEDED)
        for session_id in [i for i, name in self.recovering.items() if name == instance]:
            self._back(session_id)

    def _give_up(self, session_id: str) -> None:
        _remember(self._lapsed, session_id)
        self._events.append(GivenUp(session_id))
        self._back(session_id)

    def _back(self, session_id: str) -> None:
        """A session that was missing since the restart is accounted for. With the last one, deciding begins."""
        if self.recovering.pop(session_id, None) is not None and not self.recovering:
            self._decide_parked()

    # --- comparing books ---------------------------------------------------------------------------------------------

    def _resync(self, session: Session, held: HeldList, now: float, *, claims_before: int = 0) -> tuple[int, ...]:
        """Makes both sides' books equal: what the holder does not know, although it has seen the grant, is reclaimed;
        what only the holder knows is adopted if it is of an epoch before `claims_before`, and dropped if not.
        """
        session.acknowledge(held.seen)
        theirs = {lease.lease_id for lease in held.leases}
        leaked = [lease for i, lease in session.leases.items() if i not in theirs and lease.grant.confirmed]
        for lease in leaked:
            self._reclaim(lease, EndReason.LEAKED, now, holder_counts_it=False)
        dropped = []
        adopted = 0
        for claim in held.leases:
            if claim.lease_id in session.leases:
                continue
            if claim.lease_id >> 40 < claims_before and self._adopt(session, claim, now):
                adopted += 1
            else:
                dropped.append(claim.lease_id)
                session.departures.pop(claim.lease_id, None)
        self.adopted += adopted
        if leaked or adopted or dropped:
            self._events.append(Resynced(session, len(leaked), adopted, len(dropped)))
        return tuple(dropped)

    def _adopt(self, session: Session, claim: HeldLease, now: float) -> bool:
        if claim.lease_id > self._last_id or len(session.leases) >= session.lease_limit:
            return False
        resource = self.catalogue.adopt(claim.resource, now)
        if resource is None or claim.lease_id in resource.leases:
            return False
        known = session.requests.get(claim.request_id)
        if type(known) is Granted and known.adopted:
            grant = known
        else:
            flow = claim.flow or f"self:{session.instance}"
            grant = Granted(claim.request_id or f"adopted.{claim.lease_id}", flow, now - claim.age)
            grant.confirmed = grant.adopted = True
            grant.account_id = claim.account_id
        lease = Lease(claim.lease_id, resource, session, grant)
        self._seat(lease)
        lease.overdraft = bool(resource.overdraft)
        session.adopt(lease)
        self._claimed.append(lease)
        return True

    # --- after changes -----------------------------------------------------------------------------------------------

    def _after_policy(self, change: Change, now: float) -> None:
        if not self.recovering:
            self._decide_parked()
        if change.everything:
            waiting = [w for s in self.sessions.values() for w in s.waiting.values() if w.at is not None]
            for waiter in sorted(waiting, key=lambda w: w.seq):
                self._look_again(waiter, now)
            return
        for account in change.accounts:
            self._wake_account(account, now)

    def _decide_parked(self) -> None:
        if not self.catalogue.version:
            return
        now = self.now()
        for waiter in self._parked.waiters():
            self._look_again(waiter, now)

    def _look_again(self, waiter: Waiter, now: float) -> None:
        """Decides a waiter anew: what it asks for may mean something else by now."""
        if waiter.queue is not None and self._resolve(waiter, now):
            outcome = self._attempt(waiter, now)
            if not isinstance(outcome, Granted):
                self._wait_or_deny(waiter, outcome, now)

    def _account_changed(self, account: Account, now: float) -> None:
        self.catalogue.selector.touch(account, now)
        self._wake_account(account, now)

    def _post(self, session: Session, answer: Granted | Denied | Failed | None = None) -> None:
        if answer is not None:
            session.answers.append(answer)
        if not session.has_mail:
            session.has_mail = True
            self._mail.append(session)


def _filled_in(parts: Sequence[Part], own: Mapping[str, Resource]) -> list[Resource]:
    """Puts the key's and the account's resources where a family stands for them."""
    return [part if isinstance(part, Resource) else own[part.name] for part in parts]


def _always() -> bool:
    return True


def _doors(resource: Resource) -> list[Place]:
    """Returns the queues of a resource with waiters, each with the question whether there is a seat for them."""
    return [(queue, _door(resource, reattach)) for reattach, queue in enumerate(resource.queues) if queue]


def _door(resource: Resource, reattach: int) -> Callable[[], bool]:
    return lambda: resource.has_room(reattach=bool(reattach))


def _way_in(pool: Pool, avoid: frozenset[Account]) -> Callable[[], bool]:
    return lambda: pool.is_open(avoid)


def _remember(sessions: "OrderedDict[str, int]", session_id: str, number: int = 0) -> None:
    sessions[session_id] = number
    while len(sessions) > REMEMBERED_SESSIONS:
        sessions.popitem(last=False)
