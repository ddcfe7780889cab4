"""What the simulation has found, each as small as it can be told. First seen in the seed that the name of it says."""

import random

from admission_server.decisions import Acquire, HeldList
from admission_server.ledger import Ledger, Terms
from admission_server.policy import PolicySettings, PolicySnapshot, ResourceSettings

TERMS = Terms(ttl=3.0, grace=0.4)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def new_ledger(clock):
    ledger = Ledger(epoch=1, clock=clock, random=random.Random(1), terms=TERMS)
    settings = PolicySettings(resources=(ResourceSettings(name="lanes/proxy_http", limit=1),))
    ledger.apply_snapshot(PolicySnapshot(version=1, settings=settings))
    return ledger


def pass_time(ledger, clock, seconds):
    for _ in range(round(seconds / 0.1)):
        clock.now += 0.1
        ledger.tick()


def test_a_message_read_after_its_session_ended_does_not_stop_the_ticker():
    # Seed 173: the session was put back among those that expire, and the ticker ended with a KeyError.
    clock = Clock()
    ledger = new_ledger(clock)
    session = ledger.open("s_edge_1", instance="edge-1", role="edge").session
    ledger.close(session)
    ledger.renew(session)
    pass_time(ledger, clock, 10)

    assert ledger.sessions == {}


def test_what_comes_between_a_pause_and_the_next_tick_gets_no_later_deadline():
    # Seed 0: a heartbeat that was read right after a pause of 5 s kept its session for 5 s too long.
    clock = Clock()
    ledger = new_ledger(clock)
    session = ledger.open("s_edge_1", instance="edge-1", role="edge").session
    clock.now += 5.0
    ledger.renew(session)
    ledger.tick()

    assert session.expires_at - ledger.now() <= TERMS.ttl + TERMS.grace


def test_numbers_count_on_when_a_lapsed_session_comes_back():
    # Seed 2156: they began at 1 again, so that what the holder had seen before the lapse seemed to confirm grants of
    # which it had not heard; they were taken back as leaked.
    clock = Clock()
    ledger = new_ledger(clock)
    session = ledger.open("s_edge_1", instance="edge-1", role="edge").session
    for _ in range(4):
        session.take_mail()
    pass_time(ledger, clock, 4.0)
    back = ledger.open("s_edge_1", instance="edge-1", role="edge", held=HeldList(seen=4), epoch=1).session
    back.take_mail()
    ledger.acquire(back, Acquire(request_id="r1", resources=("lanes/proxy_http",), peer="p"))
    back.take_mail()
    ledger.open("s_edge_1", instance="edge-1", role="edge", held=HeldList(seen=4), epoch=1)

    assert back is not session
    assert back.number == 6
    assert len(back.leases) == 1
