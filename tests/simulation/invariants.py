"""What must be true in a simulated world, checked after every turn of it.

The names in brackets are those of the reasons why a lease system fails: over-admission, a leak, a lost waiter, a seat
that does not come back.
"""

from admission_server.ledger import Ledger
from admission_server.resources import Resource
from admission_server.selection import Pool
from tests.simulation.controller import Desk
from tests.simulation.edge import Edge
from tests.simulation.server import TERMS, TICK, Epoch, Server

NEVER = float("-inf")
STOPPED_WITHIN = 1.2 * TERMS.ttl + 1.0
"""A holder that hears nothing stops by itself within a TTL, by a clock that may be slow."""


class Broken(AssertionError):
    """An invariant does not hold."""


class Invariants:
    """Watches one world."""

    def __init__(self, server: Server, edges: list[Edge], desk: Desk) -> None:
        self._server = server
        self._edges = edges
        self._desk = desk
        self._limits: dict[str, int] = {}
        self._version = 0
        self._term = 0
        self._epoch: Epoch | None = None
        self._last_grant = 0
        self._steps = 0
        self.checks = 0

    def check(self) -> None:
        """Raises `Broken` when something is not as it must be."""
        epoch = self._server.epoch
        if epoch is None or epoch.paused:
            return
        if epoch is not self._epoch:
            self._epoch = epoch
            self._last_grant = epoch.number << 40
            self._version = self._term = 0
            self._limits = {}
        ledger = epoch.ledger
        if epoch.steps != self._steps:  # nothing changes in the books but by the server's doing
            self._steps = epoch.steps
            self.checks += 1
            self._grants_stay_within_limits(ledger)
            self._books_add_up(ledger)
            self._nobody_waits_where_there_is_room(ledger)
            self._policy_never_goes_back(epoch)
        self._who_may_start_something_is_in_the_books(ledger)
        if self._server.world.now - epoch.ticked_at <= TICK:  # after a pause, time begins with the next tick
            self._nobody_waits_too_long(ledger)
            self._sessions_end_in_time(ledger)

    def _grants_stay_within_limits(self, ledger: Ledger) -> None:
        """[over-admission] A resource with a new lease that was granted holds no more than its limit."""
        newest = self._last_grant
        limits = {name: resource.settings.limit for name, resource in ledger.catalogue.resources.items()}
        for resource in ledger.catalogue.resources.values():
            # A grant and a lower limit after it may come in the same turn of the loop.
            limit = max(limits[resource.name], self._limits.get(resource.name, 0))
            if not resource.leases:
                continue
            last = next(reversed(resource.leases.values()))
            if last.lease_id > self._last_grant and not last.grant.adopted:
                newest = max(newest, last.lease_id)
                if limit and len(resource.leases) > limit:
                    raise Broken(f"{resource.name}: {len(resource.leases)} of {limit} after a grant")
                if ledger.recovering:
                    raise Broken(f"{resource.name}: a grant while holders are missing")
        self._last_grant = newest
        self._limits = limits

    def _books_add_up(self, ledger: Ledger) -> None:
        """[drift] Every seat is in its session's books and in its resource's books; a lease id is there once."""
        by_session = {i: lease for session in ledger.sessions.values() for i, lease in session.leases.items()}
        by_resource = {i: lease for r in ledger.catalogue.resources.values() for i, lease in r.leases.items()}
        if by_session != by_resource:
            raise Broken(f"books differ: {by_session.keys() ^ by_resource.keys()}")
        grants = {(lease.session.session_id, lease.grant.request_id): lease.grant for lease in by_session.values()}
        for lease in by_session.values():
            key = (lease.session.session_id, lease.grant.request_id)
            if not lease.grant.adopted and grants[key] is not lease.grant:
                raise Broken(f"two grants for one request: {key}")

    def _nobody_waits_too_long(self, ledger: Ledger) -> None:
        """[lost waiter] Nobody waits beyond its time."""
        now = ledger.now()
        for session in ledger.sessions.values():
            for waiter in session.waiting.values():
                if now > waiter.deadline + 2 * TICK:
                    raise Broken(f"{waiter.acquire.request_id} waits {now - waiter.deadline:.3f} too long")

    def _nobody_waits_where_there_is_room(self, ledger: Ledger) -> None:
        """[lost waiter] Whoever waits is counted, and waits for something that has no room."""
        waiting = [waiter for session in ledger.sessions.values() for waiter in session.waiting.values()]
        if len(waiting) != ledger.waiting:
            raise Broken(f"{len(waiting)} wait, {ledger.waiting} are counted")
        for waiter in waiting:
            if ledger.recovering:
                continue
            if isinstance(waiter.at, Resource):
                account = waiter.at.account
                if (account is None or account.serving) and waiter.at.has_room(reattach=waiter.reattaches):
                    raise Broken(f"{waiter.acquire.request_id} waits for {waiter.at.name}, which has room")
            elif isinstance(waiter.at, Pool) and waiter.at.is_open():
                raise Broken(f"{waiter.acquire.request_id} waits for an account, and one has room")

    def _policy_never_goes_back(self, epoch: Epoch) -> None:
        """[old policy] In an epoch, versions and the terms of controllers only grow."""
        version, term = epoch.ledger.catalogue.version, epoch.control._term
        if version < self._version or term < self._term:
            raise Broken(f"policy {self._version} of term {self._term} became {version} of term {term}")
        self._version, self._term = version, term

    def _who_may_start_something_is_in_the_books(self, ledger: Ledger) -> None:
        """[over-admission] A holder that believes its leases to be live has its seats: nobody else was given them."""
        for edge in self._edges:
            if edge.gone or edge.client.session_id in ledger.recovering or not edge.client.live:
                continue
            if self._server.world.now - self._server.forgotten.get(edge.client.session_id, NEVER) < STOPPED_WITHIN:
                continue  # an operator has given its seats away while it lives; it will hear of it, or stop by itself
            session = ledger.sessions.get(edge.client.session_id)
            known = session.leases if session is not None else {}
            told = {i for i, _ in session.ended} | session.departures.keys() if session is not None else set()
            for lease_id in edge.client.lease_ids:
                if lease_id not in known and lease_id not in told:
                    raise Broken(f"{edge.name} may start something on {lease_id:#x}, which is not in the books")

    def _sessions_end_in_time(self, ledger: Ledger) -> None:
        """[capacity back] A session that is not heard of is over after TTL and grace, and two ticks."""
        for session in ledger.sessions.values():
            late = ledger.now() - session.expires_at
            if late > 0.25 + 2 * TICK:
                raise Broken(f"{session.session_id} outlives its time by {late:.3f}")

    def check_history(self) -> None:
        """Whatever broke, repeating what was not confirmed kept both books equal: nothing had to be taken back."""
        if self._server.leaked:
            raise Broken(f"[leak] {self._server.leaked} leases were taken back from holders that did not know them")
        if self._server.mismatches:
            raise Broken(f"[drift] the books differed {self._server.mismatches} times")

    def check_rest(self) -> None:
        """When everybody rests, nothing is held, nobody waits, and both sides agree on it."""
        epoch = self._server.epoch
        if epoch is None:
            raise Broken("the server did not come back")
        ledger = epoch.ledger
        self._check_policy(epoch)
        self._check_signals(epoch)
        held = {r.name: len(r.leases) for r in ledger.catalogue.resources.values() if r.leases}
        if held:
            raise Broken(f"[leak] nobody holds anything, but the books say {held}")
        if ledger.waiting:
            raise Broken(f"[lost waiter] {ledger.waiting} still wait")
        for edge in self._edges:
            if not edge.gone and (edge.client.lease_count or edge.client.pending_count):
                raise Broken(f"{edge.name} holds {edge.client.lease_count}, waits for {edge.client.pending_count}")
        sessions = {edge.client.session_id for edge in self._edges if not edge.gone and edge.client.ended is None}
        if ledger.sessions.keys() != sessions:
            raise Broken(f"sessions are {sorted(ledger.sessions)}, should be {sorted(sessions)}")

    def _check_policy(self, epoch: Epoch) -> None:
        """[old policy] What is in force is what was wanted last, whoever has told it."""
        catalogue = epoch.ledger.catalogue
        known = {name: resource.settings.limit for name, resource in catalogue.resources.items()}
        limits = {name: known.get(name) for name in self._desk.limits}
        if limits != self._desk.limits:
            raise Broken(f"limits are {limits}, wanted were {self._desk.limits}")
        versions = {name: account.policy.credential_version for name, account in catalogue.selector.accounts.items()}
        if versions != self._desk.versions:
            raise Broken(f"credentials are {versions}, wanted were {self._desk.versions}")

    def _check_signals(self, epoch: Epoch) -> None:
        """[lost signal] What edges saw in this epoch is stored, to the last use."""
        if len(epoch.signals):
            raise Broken(f"[lost signal] {len(epoch.signals)} accounts have signals that nobody has stored")
        for account_id, entry in epoch.signals._box.entries.items():
            stored = self._desk.counted.get((epoch.number, account_id))
            if stored != (entry.succeeded, entry.failed):
                raise Broken(f"[lost signal] of {account_id} stored {stored}, seen {entry.succeeded}, {entry.failed}")
            seen = (epoch.number, entry.event.report.outcome.value) if entry.event is not None else None
            event = self._desk.events.get(account_id)
            if seen is not None and (event is None or (event[0], event[1].value) != seen):
                raise Broken(f"[lost signal] of {account_id} the last event stored is {event}, seen was {seen}")
