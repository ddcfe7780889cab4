"""The ledger with holders around it, on a network that loses what it likes; and a naive model that judges every step.

`World` has one method for each thing that can happen. The state machine calls them as Hypothesis likes, the mutation
table by a seeded dice. After each step `check` compares the books with the rules, in the dullest way that works.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from admission_server.accounts import Outcome, Report, Standing
from admission_server.decisions import (
    AccountNeeds,
    Acquire,
    Denied,
    EndReason,
    Failed,
    Heartbeat,
    HeldLease,
    HeldList,
    Reason,
)
from admission_server.events import LeaseReclaimed, SessionEnded
from admission_server.ledger import BUCKET, Ledger, SessionRefused, Terms
from admission_server.policy import (
    AccountPolicy,
    KeyPolicy,
    PolicyDelta,
    PolicySettings,
    PolicySnapshot,
    ResourceSettings,
)
from admission_server.resources import Granted, Resource
from admission_server.sessions import Mail, Session, splitmix64

TERMS = Terms(ttl=6.0, grace=1.0, heartbeat=2.0, park=3.0, session_leases=12, session_waiters=8)
KEYS = {name: bytes([i]) * 32 for i, name in enumerate(("red", "blue"), start=1)}
LANE = ("lanes/proxy_http",)
STAGE = ("stages/response_create",)
WORK = ("stages/response_create", "accounts/-/streams", "accounts/-/response_creates")
KEYED = ("keys/-/streams", "stages/response_create")
SHAPES = (LANE, STAGE, WORK, KEYED)
TICK = 0.1


@dataclass
class Holder:
    """What one holder knows: like a client library, but written for reading."""

    instance: str
    session_id: str
    session: Session | None = None
    seen: int = 0
    epoch: int = 0
    known: dict[int, HeldLease] = field(default_factory=dict)
    asked: dict[str, Acquire] = field(default_factory=dict)
    answers: dict[str, object] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    inbox: list[Mail] = field(default_factory=list)
    connected: bool = False
    beats: int = 0
    heard_at: float = 0.0
    stopped_at: float = 0.0
    """Until when it may start something new, by its last acknowledged heartbeat."""
    over: bool = False


class World:
    """Three holders, one server, one clock."""

    def __init__(self, seed: int = 0) -> None:
        self.clock = 1000.0
        self.random = Random(seed)
        self.epoch = 1
        self.version = 0
        self.limits = {"lanes/proxy_http": 2, "stages/response_create": 2, "accounts/-/streams": 2, "keys/-/streams": 2}
        self.paused: set[str] = set()
        self.requests = 0
        self.incarnations = 0
        self.ended_leases: set[int] = set()
        self.alive: set[int] = set()
        self.adopted_now = False
        self.ledger = self._new_ledger({})
        self.push()
        self.holders = [self._new_holder(f"edge-{i}/0") for i in range(3)]
        for holder in self.holders:
            self.connect(holder)

    # --- what can happen ---------------------------------------------------------------------------------------------

    def acquire(self, holder: Holder, shape: tuple[str, ...], flow: str) -> None:
        """A holder asks for seats, and the ledger's decision is compared with the model's."""
        self.requests += 1
        acquire = Acquire(request_id=f"r{self.requests}", resources=shape)
        if flow in KEYS:
            acquire.key_sha256 = KEYS[flow]
        else:
            acquire.peer = flow
        if shape == WORK:
            acquire.needs = self._needs()
        holder.asked[acquire.request_id] = acquire
        self._say_acquire(holder, acquire)

    def _needs(self) -> AccountNeeds:
        """Most turns take any account, some avoid those that failed them, some are bound to one."""
        avoid = self.random.choice(((), (), (), ("one",), ("two",), ("one", "two"), ("two", "nobody")))
        bound = self.random.choice(("", "", "", "", "one", "two")) if not avoid else ""
        return AccountNeeds(
            kind="chatgpt",
            reattach=self.random.random() < 0.2,
            avoid_account_ids=avoid,
            required_account_id=bound,
        )

    def acquire_mixed(self, holder: Holder) -> None:
        """A holder asks for a lane together with work, which is never granted."""
        if not self._can_talk(holder):
            return
        session = self._session(holder)
        self.requests += 1
        acquire = Acquire(request_id=f"r{self.requests}", resources=(*LANE, *STAGE), peer="peer")
        before = len(session.leases)
        self.ledger.acquire(session, acquire)
        assert len(session.leases) == before, "a lane was taken together with work"

    def repeat(self, holder: Holder) -> None:
        """A holder that does not know the answer asks again, with the same id."""
        unanswered = [a for r, a in holder.asked.items() if r not in holder.answers and r not in holder.withdrawn]
        if unanswered and self._can_talk(holder):
            acquire = self.random.choice(unanswered)
            before = set(self._session(holder).leases)
            known = self._session(holder).requests.get(acquire.request_id)
            self.ledger.acquire(self._session(holder), acquire)
            assert known is None or set(self._session(holder).leases) == before, "a repeated acquire was granted twice"

    def withdraw(self, holder: Holder, *, before_it_came: bool) -> None:
        """A holder gives up an acquire: it releases the request id, sometimes before its acquire has come."""
        if not self._can_talk(holder):
            return
        if before_it_came:
            self.requests += 1
            acquire = Acquire(request_id=f"r{self.requests}", resources=LANE, peer="peer")
            self.ledger.release(self._session(holder), request_id=acquire.request_id)
            self.ledger.acquire(self._session(holder), acquire)
            late = [a for a in self._session(holder).answers if a.request_id == acquire.request_id]
            assert [getattr(a, "reason", None) for a in late] == [Reason.WITHDRAWN], "a withdrawn acquire was granted"
            return
        unanswered = [r for r in holder.asked if r not in holder.answers and r not in holder.withdrawn]
        if unanswered:
            request_id = self.random.choice(unanswered)
            holder.withdrawn.add(request_id)
            self.ledger.release(self._session(holder), request_id=request_id)
            assert request_id not in {lease.grant.request_id for lease in self._session(holder).leases.values()}

    def release(self, holder: Holder, *, twice: bool = False) -> None:
        """A holder gives a seat back, sometimes twice."""
        if holder.known and self._can_talk(holder):
            lease_id = self.random.choice(sorted(holder.known))
            del holder.known[lease_id]
            for _ in range(2 if twice else 1):
                self.ledger.release(self._session(holder), [lease_id])
            assert lease_id not in self._session(holder).leases

    def beat(self, holder: Holder) -> None:
        """A holder sends a heartbeat, with the complete list when it was asked for one."""
        if not self._can_talk(holder):
            return
        session = self._session(holder)
        holder.beats += 1
        digest = sum(splitmix64(i) for i in holder.known) % 2**64
        wanted = holder.session_id in self._list_wanted
        held = HeldList(seen=holder.seen, leases=tuple(holder.known.values())) if wanted else None
        self._list_wanted.discard(holder.session_id)
        heartbeat = Heartbeat(
            sequence=holder.beats, seen=holder.seen, lease_count=len(holder.known), lease_digest=digest, held=held
        )
        for lease_id in self.ledger.heartbeat(session, heartbeat):
            holder.known.pop(lease_id, None)
        holder.heard_at = self.ledger.now()
        holder.stopped_at = self.ledger.now() + TERMS.ttl

    def send(self, holder: Holder) -> None:
        """The server writes a message: it is on its way."""
        if self._can_talk(holder) and holder.session is not None and holder.session.has_mail:
            holder.inbox.append(holder.session.take_mail())

    def deliver(self, holder: Holder) -> None:
        """Everything that is on its way or in the mailbox arrives."""
        while holder.session is not None and holder.session.has_mail and self._can_talk(holder):
            self.send(holder)
        while holder.inbox:
            self.arrive(holder)

    def arrive(self, holder: Holder) -> None:
        """One message that is on its way arrives."""
        if holder.inbox:
            mail = holder.inbox.pop(0)
            holder.seen = mail.number
            if mail.send_held:
                self._list_wanted.add(holder.session_id)
            for answer in mail.answers:
                self._hear(holder, answer)
            for lease_id, _ in mail.ended:
                holder.known.pop(lease_id, None)

    def lose(self, holder: Holder) -> None:
        """The stream breaks, and what was on its way is lost."""
        self.send(holder)
        holder.inbox.clear()
        holder.connected = False

    def connect(self, holder: Holder) -> None:
        """A holder says hello on a new stream, with all that it holds."""
        if holder.over:
            return
        holder.inbox.clear()
        held = HeldList(seen=holder.seen, leases=tuple(holder.known.values()))
        try:
            opened = self.ledger.open(
                holder.session_id, instance=holder.instance, role="edge", held=held, epoch=holder.epoch
            )
        except SessionRefused as refused:
            if refused.reason is not EndReason.SUPERSEDED:
                raise
            holder.over = True
            return
        self.adopted_now = True
        if self.random.random() < 0.1:
            # The welcome is lost. The holder knows no more than before, and will say the same again.
            opened.session.take_mail()
            holder.connected = False
            return
        holder.epoch = self.epoch
        if holder.session is not opened.session:
            holder.seen = 0
        anew = holder.session is not opened.session
        holder.session = opened.session
        holder.connected = True
        holder.heard_at = self.ledger.now()
        holder.stopped_at = self.ledger.now() + TERMS.ttl
        for lease_id in opened.dropped:
            holder.known.pop(lease_id, None)
        if anew:
            # A new session knows no old answers: what was not answered is asked again when somebody still wants it.
            holder.withdrawn.clear()
            holder.asked = {r: a for r, a in holder.asked.items() if r not in holder.answers}

    def die(self, index: int) -> None:
        """A holder's process dies and comes back under the same name: all it held is free at once."""
        old = self.holders[index]
        new = self.holders[index] = self._new_holder(old.instance)
        self.connect(new)
        same = [s for s in self.ledger.sessions.values() if s.instance == old.instance]
        assert [s.session_id for s in same] == [new.session_id], "two sessions of one instance"

    def close(self, index: int) -> None:
        """A holder ends its session in order, and another one starts."""
        holder = self.holders[index]
        if self._can_talk(holder):
            self.ledger.close(self._session(holder))
            self.holders[index] = self._new_holder(holder.instance)
            self.connect(self.holders[index])

    def forget(self, holder: Holder) -> None:
        """An operator ends a session by hand."""
        self.ledger.forget(holder.session_id)

    def report(self, account_id: str, outcome: Outcome) -> None:
        """An edge tells what it saw of an account."""
        version = self.version if outcome is Outcome.AUTH_REJECTED else 0
        report = Report(account_id=account_id, outcome=outcome, credential_version=version, resets_after=4.0)
        self.ledger.report(report)

    def wait(self, seconds: float) -> None:
        """Time goes by, tick by tick."""
        for _ in range(max(1, round(seconds / TICK))):
            self.clock += TICK
            self._tick()

    def pause(self, seconds: float) -> None:
        """The server's process stands still, and so nobody is heard."""
        # A pause counts as half a second, however long it is. What would have ended within that may end.
        almost_over = self.ledger.now() + BUCKET + 0.5
        before = {s.session_id for s in self.ledger.sessions.values() if s.expires_at > almost_over}
        self.clock += seconds
        self._tick()
        assert before <= self.ledger.sessions.keys(), "a pause of the server ended sessions"

    def push(self, *, name: str = "", limit: int | None = None, paused: bool = False) -> None:
        """The controller changes a limit, or pauses a resource."""
        if name and limit is not None:
            self.limits[name] = limit
        if name:
            (self.paused.add if paused else self.paused.discard)(name)
        self.version += 1
        waits = {"stages/response_create": 2.0, "accounts/-/streams": 3.0}
        self.ledger.apply_snapshot(
            PolicySnapshot(
                version=self.version,
                settings=PolicySettings(
                    resources=(
                        *(
                            ResourceSettings(
                                name=resource,
                                limit=value,
                                max_wait=waits.get(resource, 0.0),
                                paused=resource in self.paused,
                                reserve=1 if resource == "accounts/-/streams" else 0,
                            )
                            for resource, value in self.limits.items()
                        ),
                        ResourceSettings(name="accounts/-/response_creates", limit=1, max_wait=3.0, max_hold=20.0),
                    ),
                    fair_share_threshold_percent=0,
                ),
                accounts=tuple(
                    AccountPolicy(
                        account_id=name,
                        kind="chatgpt",
                        access_token=f"t{self.version}",
                        credential_version=self.version,
                    )
                    for name in ("one", "two")
                ),
                keys=tuple(KeyPolicy(key_id=name, key_sha256=sha) for name, sha in KEYS.items()),
            )
        )

    def change_account(self, account_id: str, *, has_token: bool) -> None:
        """The controller loses an account's credential, or has a new one."""
        if not self.ledger.catalogue.version:
            return
        self.version += 1
        changed = AccountPolicy(
            account_id=account_id,
            kind="chatgpt",
            access_token=f"t{self.version}" if has_token else "",
            credential_version=self.version,
        )
        base = self.ledger.catalogue.version
        self.ledger.apply_delta(PolicyDelta(version=self.version, base_version=base, accounts=(changed,)))

    def restart(self, *, policy_first: bool) -> None:
        """The server dies and comes back, remembering who but not what."""
        remembered = {s.session_id: s.instance for s in self.ledger.sessions.values()} | self.ledger.recovering
        self.epoch += 1
        self.ended_leases |= self.alive
        self.alive = set()
        self.ledger = self._new_ledger(remembered)
        for holder in self.holders:
            holder.connected = False
            holder.inbox.clear()
            holder.withdrawn.clear()
        if policy_first:
            self.push()
        for holder in self.holders:
            if self.random.random() < 0.8:
                self.connect(holder)
        if not policy_first:
            self.push()

    # --- the rules ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Judges the books after a step."""
        self._note_events()
        self._check_conservation()
        self._check_limits()
        self._check_holders()
        self._check_waiters()
        self._check_bounds()
        self.adopted_now = False

    def _check_conservation(self) -> None:
        by_resource: dict[str, set[int]] = {}
        for session in self.ledger.sessions.values():
            assert session.over is None
            for lease_id, lease in session.leases.items():
                assert not lease.ended
                assert lease.session is session
                by_resource.setdefault(lease.resource.name, set()).add(lease_id)
        for name, resource in self.ledger.catalogue.resources.items():
            assert set(resource.leases) == by_resource.pop(name, set()), f"the books of {name} differ"
        assert not by_resource, "a lease on a resource that is not there"
        for family in self.ledger.catalogue.families.values():
            members = [r for r in self.ledger.catalogue.resources.values() if r.family is family]
            for holdings in {id(r.holdings): r.holdings for r in members}.values():
                mine = [lease for r in members if r.holdings is holdings for lease in r.leases.values()]
                assert sorted(lease.lease_id for seats in holdings.flows.values() for lease in seats) == sorted(
                    lease.lease_id for lease in mine
                ), "the seats of the flows are not those of the resource"
        now_alive = {i for s in self.ledger.sessions.values() for i in s.leases}
        gone = self.alive - now_alive
        assert not (now_alive - self.alive) & self.ended_leases or self.adopted_now, "a lease came back"
        self.ended_leases |= gone
        self.ended_leases -= now_alive
        self.alive = now_alive

    def _check_limits(self) -> None:
        for resource in self.ledger.catalogue.resources.values():
            fresh = [lease for lease in resource.leases.values() if lease.lease_id not in self._counted]
            granted = [lease for lease in fresh if not lease.grant.adopted]
            self._counted.update(lease.lease_id for lease in fresh)
            limit = resource.settings.limit
            if granted and limit and not self.adopted_now:
                assert len(resource.leases) <= limit, f"{resource.name} was granted above its limit"
                assert not resource.settings.paused or self._pushed, f"{resource.name} was granted while paused"

    def _check_holders(self) -> None:
        names = [s.instance for s in self.ledger.sessions.values()]
        assert len(names) == len(set(names)), "two sessions of one instance"
        for holder in self.holders:
            session = holder.session
            if (
                session is None
                or session.over is not None
                or self.ledger.sessions.get(session.session_id) is not session
            ):
                continue
            if not holder.connected:
                continue
            told = {lease_id for lease_id, _ in session.ended}
            for lease_id in holder.known:
                assert lease_id in session.leases or lease_id in session.departures or lease_id in told, (
                    "a holder uses a seat that was given away, and is not told"
                )

    def _check_waiters(self) -> None:
        waiting = [w for s in self.ledger.sessions.values() for w in s.waiting.values()]
        assert len(waiting) == self.ledger.waiting
        for waiter in waiting:
            assert waiter.queue is not None
            assert waiter.session.requests[waiter.acquire.request_id] is waiter
            assert waiter.deadline >= self.ledger.now() - 2 * TICK, "a waiter was forgotten"
            if waiter.at is not None:
                assert not self.can_have(waiter.acquire), "a seat is free, and somebody waits for it"

    def _check_bounds(self) -> None:
        for session in self.ledger.sessions.values():
            assert len(session.leases) <= TERMS.session_leases
            assert len(session.waiting) <= TERMS.session_waiters
            assert len(session.unseen) <= TERMS.session_leases

    def can_have(self, acquire: Acquire) -> bool:
        """Returns whether the model would grant an acquire now: the dull truth, from the books alone."""
        if self.ledger.recovering or not self.ledger.catalogue.version:
            return False
        if "keys/-/streams" in acquire.resources and not acquire.key_sha256:
            return False
        fixed = [name for name in acquire.resources if not name.startswith("accounts/")]
        names = [f"keys/{self._key_of(acquire)}/streams" if n == "keys/-/streams" else n for n in fixed]
        if not all(self._has_room(self.ledger.catalogue.resources[name], reattach=False) for name in names):
            return False
        families = [name for name in acquire.resources if name.startswith("accounts/")]
        needs = acquire.needs
        if not families or needs is None:
            return not families
        bound = needs.required_account_id
        reattach = needs.reattach or bool(bound)
        return any(
            self._serves(account)
            and all(
                self._has_room(self.ledger.catalogue.resources[f.replace("-", account, 1)], reattach=reattach)
                for f in families
            )
            for account in ("one", "two")
            if (account == bound if bound else account not in needs.avoid_account_ids)
        )

    def _serves(self, account_id: str) -> bool:
        account = self.ledger.catalogue.selector.accounts[account_id]
        return account.standing(self.ledger.now())[0] is Standing.SERVING

    @staticmethod
    def _has_room(resource: Resource, *, reattach: bool) -> bool:
        settings = resource.settings
        if settings.paused:
            return False
        if not settings.limit:
            return True
        keep = 0 if reattach else settings.reserve
        return len(resource.leases) + 1 <= max(1, settings.limit - keep)

    # --- how it works ------------------------------------------------------------------------------------------------

    def _say_acquire(self, holder: Holder, acquire: Acquire) -> None:
        if not self._can_talk(holder):
            return
        session = self._session(holder)
        expected = self.can_have(acquire)
        full = len(session.leases) + len(acquire.resources) > TERMS.session_leases
        decided = len(session.answers)
        keyless = "keys/-/streams" in acquire.resources and not acquire.key_sha256
        self.ledger.acquire(session, acquire)
        answer = session.answers[-1] if len(session.answers) > decided else None
        if keyless:
            assert isinstance(answer, Failed) or self.ledger.recovering
        elif expected and not full:
            assert isinstance(answer, Granted), f"there was room, and the answer is {answer}"
            assert len(answer.leases) == len(acquire.resources)
        else:
            assert not isinstance(answer, Granted), "granted, and there was no room"

    def _hear(self, holder: Holder, answer: Granted | Denied | Failed) -> None:
        request_id = answer.request_id
        if request_id in holder.withdrawn:
            return
        first = holder.answers.setdefault(request_id, answer)
        assert first is answer or isinstance(answer, Denied | Failed), "the same request id got two answers"
        if isinstance(answer, Granted) and request_id in holder.asked:
            for lease in answer.leases:
                assert lease.lease_id not in self.leaked, "a seat was called leaked while its grant was on its way"
                if not lease.ended:
                    holder.known[lease.lease_id] = HeldLease(
                        lease_id=lease.lease_id,
                        resource=lease.resource.name,
                        account_id=answer.account.account_id if answer.account else "",
                        request_id=request_id,
                        flow=answer.flow,
                    )

    def _tick(self) -> None:
        self.ledger.tick()
        self._note_events()
        for session in self.ledger.sessions.values():
            assert self.ledger.now() <= session.expires_at + 2 * BUCKET + 2 * TICK, "a dead session keeps its seats"

    def _note_events(self) -> None:
        for event in self.ledger.take_events():
            if isinstance(event, LeaseReclaimed) and event.reason is EndReason.LEAKED:
                self.leaked.add(event.lease.lease_id)
            if isinstance(event, SessionEnded) and event.reason is EndReason.EXPIRED:
                for holder in self.holders:
                    if holder.session is event.session:
                        assert self.ledger.now() >= holder.stopped_at, (
                            "seats were taken while their holder may use them"
                        )
                        assert self.ledger.now() >= holder.heard_at + TERMS.ttl + TERMS.grace - 1e-6, "grace was cut"

    def _can_talk(self, holder: Holder) -> bool:
        return (
            holder.connected
            and holder.session is not None
            and holder.session.over is None
            and self.ledger.sessions.get(holder.session_id) is holder.session
        )

    def _session(self, holder: Holder) -> Session:
        assert holder.session is not None
        self.ledger.renew(holder.session)
        holder.heard_at = self.ledger.now()
        return holder.session

    def _key_of(self, acquire: Acquire) -> str:
        return next(name for name, sha in KEYS.items() if sha == acquire.key_sha256)

    def _new_holder(self, instance: str) -> Holder:
        self.incarnations += 1
        return Holder(instance=instance, session_id=f"session_{self.incarnations}")

    def _new_ledger(self, remembered: dict[str, str]) -> Ledger:
        self._counted: set[int] = set()
        self._list_wanted: set[str] = set()
        self.leaked: set[int] = set()
        self._pushed = False
        return Ledger(epoch=self.epoch, clock=lambda: self.clock, random=Random(1), terms=TERMS, remembered=remembered)


Step = Callable[[World, int, Random], None]
STEPS: tuple[tuple[int, Step], ...] = (
    (30, lambda w, i, dice: w.acquire(w.holders[i], dice.choice(SHAPES), dice.choice((*KEYS, "peer")))),
    (1, lambda w, i, _: w.acquire_mixed(w.holders[i])),
    (3, lambda w, i, _: w.repeat(w.holders[i])),
    (2, lambda w, i, _: w.withdraw(w.holders[i], before_it_came=False)),
    (1, lambda w, i, _: w.withdraw(w.holders[i], before_it_came=True)),
    (12, lambda w, i, _: w.release(w.holders[i])),
    (1, lambda w, i, _: w.release(w.holders[i], twice=True)),
    (14, lambda w, i, _: w.beat(w.holders[i])),
    (12, lambda w, i, _: w.send(w.holders[i])),
    (8, lambda w, i, _: w.arrive(w.holders[i])),
    (14, lambda w, i, _: w.deliver(w.holders[i])),
    (2, lambda w, i, _: w.lose(w.holders[i])),
    (4, lambda w, i, _: w.connect(w.holders[i])),
    (1, lambda w, i, _: w.die(i)),
    (1, lambda w, i, _: w.close(i)),
    (1, lambda w, i, _: w.forget(w.holders[i])),
    (3, lambda w, _, dice: w.report(dice.choice(("one", "two")), dice.choice(list(Outcome)))),
    (8, lambda w, _, dice: w.wait(dice.uniform(0.1, 1.5))),
    (1, lambda w, _, dice: w.wait(dice.uniform(2.0, 9.0))),
    (1, lambda w, _, dice: w.pause(dice.uniform(0.5, 30.0))),
    (2, lambda w, _, dice: _push_something(w, dice)),
    (3, lambda w, _, dice: w.change_account(dice.choice(("one", "two")), has_token=dice.random() < 0.6)),
    (1, lambda w, _, dice: w.restart(policy_first=dice.random() < 0.5)),
)


def play(seed: int, steps: int = 120) -> None:
    """Plays one seeded game, and judges every step. Raises `AssertionError` when a rule was broken."""
    dice = Random(seed)
    world = World(seed)
    weights = [weight for weight, _ in STEPS]
    for _ in range(steps):
        _, step = dice.choices(STEPS, weights)[0]
        step(world, dice.randrange(len(world.holders)), dice)
        world.check()


def _push_something(world: World, dice: Random) -> None:
    limit = dice.choice((0, 1, 2, 2, 3, 3))
    world.push(name=dice.choice(sorted(world.limits)), limit=limit, paused=dice.random() < 0.1)
