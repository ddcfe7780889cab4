"""The ledger alone, without gRPC: how fast it decides, what a heartbeat and a lease cost.

It only computes, so it is timed by the CPU time of this process: what else runs on the machine matters less.
"""

import gc
import random
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from admission_server.decisions import AccountNeeds, Acquire, Heartbeat
from admission_server.ledger import Ledger, Terms
from admission_server.policy import AccountPolicy, PolicySettings, PolicySnapshot, ResourceSettings
from admission_server.resources import Granted
from admission_server.sessions import Session, splitmix64

ACCOUNTS = 50
KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatCost:
    """What one heartbeat costs the ledger."""

    leases: int
    microseconds: float


def cycles_per_second(*, seconds: float) -> float:
    """Returns acquire → grant → release cycles of one lane seat a second."""
    ledger, session = new_ledger()

    def cycle(n: int) -> int:
        ledger.acquire(session, Acquire(request_id=f"r{n}", resources=("lanes/proxy_http",), peer="bench"))
        granted = deliver(ledger)
        ledger.release(session, [lease.lease_id for lease in granted.leases])
        return 1

    return _rate(cycle, seconds)


def turns_per_second(*, seconds: float) -> float:
    """Returns turns a second in the edge's pattern: lane, then stage and account, selected among 50; then release."""
    ledger, session = new_ledger()
    needs = AccountNeeds(model="gpt-5.5", affinity_keys=("session", "thread"))
    work = ("stages/response_create", "accounts/-/streams", "accounts/-/response_creates")

    def turn(n: int) -> int:
        ledger.acquire(session, Acquire(request_id=f"l{n}", resources=("lanes/proxy_http",), peer="bench"))
        lane = deliver(ledger)
        ledger.acquire(session, Acquire(request_id=f"w{n}", resources=work, peer="bench", needs=needs))
        granted = deliver(ledger)
        ledger.release(session, [lease.lease_id for lease in granted.leases])
        ledger.release(session, [lane.leases[0].lease_id])
        return 1

    return _rate(turn, seconds)


def heartbeat_costs(sizes: tuple[int, ...]) -> list[HeartbeatCost]:
    """Returns what a heartbeat costs, by how many leases the session holds."""
    costs = []
    for size in sizes:
        ledger, session = new_ledger()
        digest = hold(ledger, session, size)
        beat = Heartbeat(sequence=1, seen=session.number, lease_count=size, lease_digest=digest)
        ledger.heartbeat(session, beat)
        if session.send_held:
            raise AssertionError("the books differ")
        gc.collect()
        costs.append(HeartbeatCost(leases=size, microseconds=best_of(partial(ledger.heartbeat, session, beat)) * 1e6))
    return costs


def best_of(step: Callable[[], object]) -> float:
    """Returns the seconds of CPU that a step takes, in the least disturbed of ten rounds."""
    rounds = []
    for _ in range(10):
        began = time.process_time()
        for _ in range(2_000):
            step()
        rounds.append((time.process_time() - began) / 2_000)
    return min(rounds)


def bytes_per_lease(*, leases: int) -> float:
    """Returns how much memory a lease that is held takes in the ledger, everything that hangs on it included."""
    ledger, session = new_ledger()
    hold(ledger, session, 1_000)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    hold(ledger, session, leases, first=1_000)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / leases


def new_ledger() -> tuple[Ledger, Session]:
    """Returns a ledger with 50 accounts and no limits that bind, and a session in it."""
    ledger = Ledger(
        epoch=1, clock=time.monotonic, random=random.Random(1), terms=Terms(session_leases=1_000_000, waiters=1_000_000)
    )
    ledger.apply_snapshot(policy())
    return ledger, ledger.open("bench_session", instance="bench", role="edge").session


def policy() -> PolicySnapshot:
    """Returns a policy whose limits leave room for everything that is measured."""
    resources = (
        ResourceSettings(name="lanes/proxy_http", limit=1_000_000),
        ResourceSettings(name="stages/response_create", limit=1_000_000, max_wait=2.0, max_hold=300.0),
        ResourceSettings(name="accounts/-/streams", limit=100_000, max_wait=10.0, reserve=1),
        ResourceSettings(name="accounts/-/response_creates", limit=100_000, max_wait=10.0, max_hold=300.0),
        ResourceSettings(name="keys/-/streams"),
    )
    accounts = tuple(
        AccountPolicy(
            account_id=f"acc_{n}",
            kind="chatgpt",
            base_url="http://127.0.0.1:9/backend-api",
            access_token="x" * 1_200,
            credential_version=1,
            weight=1.0 + n % 7,
        )
        for n in range(ACCOUNTS)
    )
    return PolicySnapshot(version=1, settings=PolicySettings(resources=resources), accounts=accounts)


def hold(ledger: Ledger, session: Session, leases: int, *, first: int = 0) -> int:
    """Takes leases and keeps them, acknowledged. Returns their digest."""
    digest = 0
    for n in range(first, first + leases):
        request_id = f"h{n}"
        ledger.acquire(session, Acquire(request_id=request_id, resources=("lanes/proxy_http",), peer="bench"))
        digest += sum(splitmix64(lease.lease_id) for lease in deliver(ledger).leases)
    session.acknowledge(session.number)
    return digest & (2**64 - 1)


def deliver(ledger: Ledger) -> Granted:
    """Empties the mailbox as the servicer does. Returns the grant that must be in it."""
    (session,) = ledger.take_mail()
    mail = session.take_mail()
    (answer,) = mail.answers
    if not isinstance(answer, Granted):
        raise TypeError(f"refused: {answer}")
    return answer


def _rate(step: Callable[[int], int], seconds: float) -> float:
    for n in range(2_000):
        step(-1 - n)
    done = 0
    began = time.process_time()
    while (elapsed := time.process_time() - began) < seconds:
        for _ in range(100):
            done += step(done)
    return done / elapsed
