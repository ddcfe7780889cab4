"""One test for each way in which somebody else's seats got lost, named after the report of it."""

from admission_server.decisions import AccountNeeds, EndReason, HeldLease, HeldList
from admission_server.events import LeaseReclaimed
from admission_server.resources import Granted
from tests.admission_server.bench import LANE, STAGE, STREAMS, Bench, account, answer_to, settings


def test_litellm_28160_a_caller_that_is_cancelled_while_its_seat_is_granted_gives_it_back():
    # The decrement was lost when the caller was cancelled. Here a release may name a request without an answer.
    bench = Bench(settings(LANE, 1))
    session = bench.session()
    bench.ask(session, LANE, request_id="cancelled")
    ended = bench.ledger.release(session, request_id="cancelled")

    assert ended == 1
    assert isinstance(bench.acquire(session, LANE), Granted)


def test_litellm_20256_a_release_that_is_lost_is_found_by_comparing_books():
    # The counter stayed up until somebody reset the database. Here a difference is found by the next heartbeat.
    bench = Bench(settings(LANE, 1))
    session = bench.session()
    bench.ask(session, LANE)
    number = session.take_mail().number
    asked = bench.beat(session, seen=number)
    bench.ledger._resync(session, HeldList(seen=number), bench.clock)

    assert asked
    assert bench.held(LANE) == 0
    assert [event.reason for event in bench.events() if isinstance(event, LeaseReclaimed)] == [EndReason.LEAKED]


def test_sglang_31907_a_waiter_that_leaves_passes_its_turn_on():
    # A cancelled waiter swallowed the wake-up, and the next one slept for ever.
    bench = Bench(settings(STAGE, 1, max_wait=60.0))
    session = bench.session()
    first = bench.grant(session, STAGE)
    bench.ask(session, STAGE, request_id="leaves")
    stays = bench.ask(session, STAGE)
    bench.ledger.release(session, request_id="leaves")
    bench.release(session, first)

    assert isinstance(answer_to(session, stays), Granted)


def test_sglang_31907_a_seat_granted_to_a_waiter_that_is_leaving_goes_to_the_next():
    bench = Bench(settings(STAGE, 1, max_wait=60.0))
    session = bench.session()
    first = bench.grant(session, STAGE)
    bench.ask(session, STAGE, request_id="leaves")
    stays = bench.ask(session, STAGE)
    bench.release(session, first)
    bench.ledger.release(session, request_id="leaves")

    assert isinstance(answer_to(session, stays), Granted)


def test_sentinel_sweep_one_session_after_another_ends_however_many_are_due():
    # The sweep looked at the first thousand keys only, and an error with one of them ended the pass.
    bench = Bench(settings(LANE, 0), settings(STAGE, 0))
    for i in range(1500):
        session = bench.session(f"edge-{i}/0")
        bench.ask(session, LANE)
    bench.push(settings(STAGE, 0))
    bench.wait(18.0)

    assert bench.held(LANE) == 0
    assert not bench.ledger.sessions


def test_sentinel_negative_counter_seats_of_a_deleted_rule_are_freed_and_never_counted_below_zero():
    # Deleting and adding a rule restarted its counter at zero; old tokens then made it negative.
    bench = Bench(settings(LANE, 2))
    session = bench.session()
    old = [bench.grant(session, LANE) for _ in range(2)]
    bench.push(settings(STAGE, 1))
    bench.push(settings(LANE, 2))
    still = bench.held(LANE)
    for granted in old:
        bench.release(session, granted)
        bench.release(session, granted)

    assert still == 2
    assert bench.held(LANE) == 0
    assert [isinstance(bench.acquire(session, LANE), Granted) for _ in range(3)] == [True, True, False]


def test_etcd_12528_a_server_that_was_paused_revokes_nobody_when_it_wakes():
    bench = Bench(settings(LANE, 5))
    sessions = [bench.session(f"edge-{i}/0") for i in range(5)]
    for session in sessions:
        bench.ask(session, LANE)
    bench.clock += 600.0
    bench.ledger.tick()

    assert bench.held(LANE) == 5


def test_prefect_22935_a_session_has_one_expiry_and_its_leases_have_none_that_could_drift_from_it():
    # Expiry was stored twice, and a lease that was renewed in one place was revoked by the other.
    bench = Bench(settings(LANE, 0))
    session = bench.session()
    granted = []
    for _ in range(40):
        granted.append(bench.grant(session, LANE))
        bench.wait(4.0)
        bench.beat(session, *granted)

    assert bench.held(LANE) == 40


def test_apisix_12823_seats_of_a_replica_that_crashed_come_back_by_themselves():
    # The counter in Redis was never decremented for requests that a crashed replica had been serving.
    bench = Bench(settings(LANE, 2))
    crashed, lives = bench.session("edge-1/0"), bench.session("edge-2/0")
    for _ in range(2):
        bench.ask(crashed, LANE)
    for _ in range(4):
        bench.wait(4.5)
        bench.beat(lives)

    assert bench.held(LANE) == 0
    assert isinstance(bench.acquire(lives, LANE), Granted)


def test_apisix_12823_a_decrement_that_failed_is_repeated_without_harm():
    bench = Bench(settings(LANE, 2))
    session = bench.session()
    granted, other = bench.grant(session, LANE), bench.grant(session, LANE)
    for _ in range(5):
        bench.release(session, granted)

    assert bench.held(LANE) == 1
    assert not other.leases[0].ended


def test_codex_lb_1281_a_stream_that_was_abandoned_does_not_hold_its_accounts_seat_for_hours():
    # Stream slots of dead sessions starved accounts until a stale sweep after two hours, or a restart.
    bench = Bench(settings(STREAMS, 1, max_wait=30.0), accounts=(account("only"),))
    dead, lives = bench.session("edge-1/0"), bench.session("edge-2/0")
    bench.ask(dead, STREAMS, needs=AccountNeeds())
    waiting = bench.ask(lives, STREAMS, needs=AccountNeeds())
    for _ in range(4):
        bench.wait(4.5)
        bench.beat(lives)

    assert isinstance(answer_to(lives, waiting), Granted)


def test_codex_lb_1281_the_stream_itself_is_not_killed_and_is_counted_when_its_holder_is_back():
    bench = Bench(settings(STREAMS, 1, max_wait=30.0), accounts=(account("only"),))
    session = bench.session("edge-1/0", session_id="paused_edge")
    granted = bench.grant(session, STREAMS, needs=AccountNeeds())
    bench.wait(18.0)
    lease = granted.leases[0]
    claim = HeldLease(lease_id=lease.lease_id, resource="accounts/only/streams", account_id="only", request_id="r1")
    bench.ledger.open("paused_edge", instance="edge-1/0", role="edge", held=HeldList(seen=0, leases=(claim,)), epoch=3)

    assert bench.held("accounts/only/streams") == 1
