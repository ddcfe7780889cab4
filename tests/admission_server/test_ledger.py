import gc
from random import Random
from typing import Any

import pytest

from admission_server.decisions import AccountNeeds, EndReason, Failed, HeldLease, HeldList, Reason
from admission_server.events import LeaseReclaimed, Resynced, SessionEnded
from admission_server.ledger import Ledger, SessionRefused, Terms
from admission_server.policy import PolicyError
from admission_server.resources import Granted
from tests.admission_server.bench import (
    CREATES,
    LANE,
    STAGE,
    STREAMS,
    Bench,
    account,
    answer_to,
    key,
    reason,
    settings,
    sha,
)


def lane(limit: int, **others: Any) -> Bench:
    return Bench(settings(LANE, limit, **others), fair_share_threshold_percent=0)


# --- granting --------------------------------------------------------------------------------------------------------


def test_a_lane_grants_up_to_its_limit_and_not_one_more():
    bench = lane(2)
    session = bench.session()
    bench.grant(session, LANE)
    bench.grant(session, LANE)
    denied = bench.refuse(session, LANE)

    assert denied.reason is Reason.LANE_FULL
    assert (denied.resource, denied.limit, denied.held) == (LANE, 2, 2)


def test_lease_ids_are_the_epoch_and_a_counter():
    bench = lane(0)
    session = bench.session()
    ids = [bench.grant(session, LANE).leases[0].lease_id for _ in range(3)]

    assert ids == [(3 << 40) + i for i in (1, 2, 3)]


def test_seats_are_granted_together_or_not_at_all():
    bench = Bench(settings(STAGE, 5), settings("stages/compact", 1))
    session = bench.session()
    bench.grant(session, STAGE, "stages/compact")
    denied = bench.refuse(session, STAGE, "stages/compact")

    assert denied.resource == "stages/compact"
    assert bench.held(STAGE) == 1


def test_a_lane_is_never_taken_together_with_work():
    bench = Bench(settings(LANE, 5), settings(STAGE, 5))
    answer = bench.acquire(bench.session(), LANE, STAGE)

    assert isinstance(answer, Failed)
    assert answer.field == "resources[0]"


def test_a_session_holds_no_more_leases_than_it_may_also_through_the_queue():
    bench = Bench(settings(STAGE, 1, max_wait=5.0), settings(LANE, 0), terms=Terms(session_leases=2))
    session = bench.session()
    first = bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE)
    bench.grant(session, LANE)
    full = bench.refuse(session, LANE)
    lane_seat = bench.grant(bench.session("edge-2/0"), LANE)
    bench.release(session, first)
    answer = answer_to(session, waiting)

    assert full.reason is Reason.SESSION_FULL
    assert isinstance(answer, Granted)
    assert not lane_seat.leases[0].ended
    assert len(session.leases) == 2


def test_counts_are_the_leases_themselves_and_releasing_twice_is_fine():
    bench = lane(1)
    session = bench.session()
    granted = bench.grant(session, LANE)
    first = bench.ledger.release(session, [granted.leases[0].lease_id])
    second = bench.ledger.release(session, [granted.leases[0].lease_id, 12345])

    assert (first, second) == (1, 0)
    assert bench.held(LANE) == 0


def test_what_was_granted_and_given_back_leaves_nothing_to_the_garbage_collector():
    bench = Bench(settings(LANE, 0), settings(STAGE, 0), settings(STREAMS, 0), accounts=(account("a"),))
    session = bench.session()
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            lane_seat = bench.grant(session, LANE)
            work = bench.grant(session, STAGE, STREAMS)
            bench.release(session, work)
            bench.release(session, lane_seat)
        left_over = gc.collect()
    finally:
        gc.enable()

    assert left_over == 0


def test_another_session_cannot_release_a_lease():
    bench = lane(1)
    granted = bench.grant(bench.session("edge-1/0"), LANE)
    bench.release(bench.session("edge-2/0"), granted)

    assert bench.held(LANE) == 1


def test_key_streams_are_a_resource_like_any_other():
    bench = Bench(settings("keys/-/streams", 2), keys=(key("red"), key("blue", max_streams=1)))
    session = bench.session()
    red = [bench.acquire(session, "keys/-/streams", key_sha256=sha("red")) for _ in range(3)]
    blue = [bench.acquire(session, "keys/-/streams", key_sha256=sha("blue")) for _ in range(2)]

    assert [reason(answer) for answer in red] == [None, None, Reason.KEY_STREAMS_FULL]
    assert [reason(answer) for answer in blue] == [None, Reason.KEY_STREAMS_FULL]


def test_unknown_expired_and_barred_keys_take_no_seat():
    bench = Bench(settings(LANE, 5), keys=(key("old", expires_in=10.0), key("narrow", models=("a",))))
    session = bench.session()
    bench.wait(10.0)

    assert bench.refuse(session, LANE, key_sha256=sha("nobody")).reason is Reason.KEY_UNKNOWN
    assert bench.refuse(session, LANE, key_sha256=sha("old")).reason is Reason.KEY_EXPIRED
    barred = bench.refuse(session, LANE, key_sha256=sha("narrow"), needs=AccountNeeds(model="b"))
    assert barred.reason is Reason.MODEL_NOT_ALLOWED
    assert bench.held(LANE) == 0


# --- once only -------------------------------------------------------------------------------------------------------


def test_the_same_request_id_gets_the_same_denial_until_it_was_seen():
    bench = lane(1)
    session = bench.session()
    granted = bench.grant(session, LANE)
    first = bench.refuse(session, LANE, request_id="twice")
    bench.release(session, granted)
    second = bench.refuse(session, LANE, request_id="twice")
    session.answers.append(second)
    session.take_mail()
    bench.beat(session)

    assert second is first
    assert bench.grant(session, LANE, request_id="twice")


def test_a_repeated_acquire_that_waits_still_waits_once():
    bench = Bench(settings(STAGE, 1, max_wait=5.0))
    session = bench.session()
    first = bench.grant(session, STAGE)
    bench.ask(session, STAGE, request_id="w")
    bench.ask(session, STAGE, request_id="w")
    bench.release(session, first)

    assert len([answer for answer in session.answers if answer.request_id == "w"]) == 1
    assert bench.held(STAGE) == 1


def test_releasing_a_request_id_ends_all_its_leases():
    bench = Bench(settings(STAGE, 5), settings("stages/compact", 5))
    session = bench.session()
    bench.grant(session, STAGE, "stages/compact", request_id="lost")

    assert bench.ledger.release(session, request_id="lost") == 2
    assert bench.refuse(session, STAGE, request_id="lost").reason is Reason.WITHDRAWN


def test_memory_of_answers_is_bounded():
    bench = lane(1)
    session = bench.session()
    bench.grant(session, LANE)
    for i in range(25_000):
        bench.ask(session, LANE, request_id=f"denied-{i}")
        bench.ledger.release(session, request_id=f"withdrawn-{i}")
        if i % 400 == 0:
            session.take_mail()
    while session.has_mail:
        session.take_mail()

    assert len(session.requests) < 21_000


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_a_waiter_is_woken_by_the_release():
    bench = Bench(settings(STAGE, 1, max_wait=2.0))
    session = bench.session()
    first = bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE)
    bench.release(session, first)

    assert isinstance(answer_to(session, waiting), Granted)
    assert bench.held(STAGE) == 1


def test_a_wait_ends_with_the_reason_of_what_was_waited_for():
    bench = Bench(settings(STAGE, 1, max_wait=2.0))
    session = bench.session()
    bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE)
    bench.wait(1.8)
    before = answer_to(session, waiting)
    bench.wait(0.3)

    assert before is None
    assert reason(answer_to(session, waiting)) is Reason.STAGE_FULL


def test_the_holder_may_wait_for_less():
    bench = Bench(settings(STAGE, 1, max_wait=10.0))
    session = bench.session()
    bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE, max_wait=0.5)
    bench.wait(0.7)

    assert reason(answer_to(session, waiting)) is Reason.STAGE_FULL


def test_a_wait_is_counted_from_arrival_also_after_a_move():
    bench = Bench(settings(STAGE, 1, max_wait=2.0), settings("stages/compact", 1, max_wait=3.0))
    session = bench.session()
    one = bench.grant(session, STAGE)
    bench.grant(session, "stages/compact")
    waiting = bench.ask(session, STAGE, "stages/compact")
    bench.wait(1.5)
    bench.release(session, one)
    bench.wait(1.4)
    before = answer_to(session, waiting)
    bench.wait(0.3)
    denied = answer_to(session, waiting)

    assert before is None
    assert reason(denied) is Reason.STAGE_FULL
    assert bench.held(STAGE) == 0


def test_a_turn_that_is_bound_to_a_full_account_holds_nobody_up():
    bench = Bench(
        settings(STAGE, 1, max_wait=5.0),
        settings(STREAMS, 1, max_wait=5.0),
        accounts=(account("full"), account("free")),
    )
    session = bench.session()
    bench.grant(session, STREAMS, needs=AccountNeeds(required_account_id="full"))
    stage = bench.grant(session, STAGE)
    bound = bench.ask(session, STAGE, STREAMS, needs=AccountNeeds(required_account_id="full"))
    loose = bench.ask(session, STAGE, STREAMS, needs=AccountNeeds())
    bench.release(session, stage)

    assert answer_to(session, bound) is None
    assert isinstance(answer_to(session, loose), Granted)


def test_the_flow_with_the_fewest_seats_goes_next():
    bench = Bench(settings(STAGE, 3, max_wait=5.0))
    session = bench.session()
    greedy = [bench.grant(session, STAGE, peer="greedy") for _ in range(3)]
    first = bench.ask(session, STAGE, peer="greedy")
    modest = bench.ask(session, STAGE, peer="modest")
    bench.release(session, greedy[0])
    served_first = answer_to(session, modest)
    bench.release(session, greedy[1])

    assert isinstance(served_first, Granted)
    assert isinstance(answer_to(session, first), Granted)


def test_a_full_queue_refuses_the_youngest():
    bench = Bench(settings(STAGE, 1, max_wait=5.0, queue_limit=2))
    session = bench.session()
    bench.grant(session, STAGE)
    waiting = [bench.ask(session, STAGE) for _ in range(2)]
    denied = bench.refuse(session, STAGE)

    assert denied.reason is Reason.QUEUE_FULL
    assert denied.waiters == 2
    assert [answer_to(session, request_id) for request_id in waiting] == [None, None]


def test_a_flow_cannot_fill_a_queue_alone():
    bench = Bench(settings(STAGE, 1, max_wait=5.0), terms=Terms(flow_waiters=3))
    session = bench.session()
    bench.grant(session, STAGE)
    for _ in range(3):
        bench.ask(session, STAGE, peer="greedy")

    assert bench.refuse(session, STAGE, peer="greedy").reason is Reason.QUEUE_FULL
    assert bench.acquire(session, STAGE, peer="modest") is None


def test_a_session_and_the_server_have_bounds_on_waiters():
    bench = Bench(settings(STAGE, 1, max_wait=5.0), terms=Terms(session_waiters=2, waiters=3))
    one, two = bench.session("edge-1/0"), bench.session("edge-2/0")
    bench.grant(one, STAGE)
    bench.ask(one, STAGE)
    bench.ask(one, STAGE)
    own_bound = bench.refuse(one, STAGE)
    bench.ask(two, STAGE)
    server_bound = bench.refuse(two, STAGE)

    assert own_bound.reason is Reason.SESSION_FULL
    assert server_bound.reason is Reason.QUEUE_FULL


def test_a_withdrawn_waiter_is_gone_at_once():
    bench = Bench(settings(STAGE, 1, max_wait=5.0))
    session = bench.session()
    first = bench.grant(session, STAGE)
    bench.ask(session, STAGE, request_id="left")
    bench.ledger.release(session, request_id="left")
    bench.release(session, first)

    assert bench.held(STAGE) == 0
    assert bench.ledger.waiting == 0


def test_near_the_limit_a_flow_with_its_fair_share_is_refused_and_others_get_in():
    bench = Bench(settings(LANE, 10))
    session = bench.session()
    for _ in range(8):
        bench.grant(session, LANE, peer="greedy")
    modest = bench.grant(session, LANE, peer="modest")
    refused = bench.refuse(session, LANE, peer="greedy")
    again = bench.grant(session, LANE, peer="modest")

    assert refused.reason is Reason.FAIR_SHARE
    assert not modest.leases[0].ended
    assert not again.leases[0].ended


def test_a_flow_alone_may_have_everything():
    bench = Bench(settings(LANE, 10))
    session = bench.session()

    assert all(isinstance(bench.acquire(session, LANE), Granted) for _ in range(10))


def test_a_fair_share_is_at_least_two_and_the_rule_can_be_switched_off():
    crowded = Bench(settings(LANE, 5))
    session = crowded.session()
    for peer in ("a", "b", "c", "d"):
        crowded.grant(session, LANE, peer=peer)
    off = lane(5)
    other = off.session()
    for peer in ("a", "a", "a", "b"):
        off.grant(other, LANE, peer=peer)

    assert isinstance(crowded.acquire(session, LANE, peer="a"), Granted)
    assert isinstance(off.acquire(other, LANE, peer="a"), Granted)


# --- limits that change ----------------------------------------------------------------------------------------------


def test_a_raised_limit_and_an_ended_pause_wake_waiters():
    bench = Bench(settings(STAGE, 1, max_wait=5.0))
    session = bench.session()
    bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE)
    bench.push(settings(STAGE, 2, max_wait=5.0))

    assert isinstance(answer_to(session, waiting), Granted)


def test_pausing_a_resource_answers_those_who_wait_for_it():
    bench = Bench(settings(STAGE, 1, max_wait=5.0))
    session = bench.session()
    bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE)
    bench.push(settings(STAGE, 1, max_wait=5.0, paused=True))

    assert reason(answer_to(session, waiting)) is Reason.PAUSED
    assert bench.held(STAGE) == 1


def test_a_lane_that_left_the_policy_is_closed_and_its_seats_come_back():
    bench = lane(3)
    session = bench.session()
    granted = bench.grant(session, LANE)
    bench.push(settings(STAGE, 1))
    refused = bench.acquire(session, LANE)
    kept = bench.held(LANE)
    bench.release(session, granted)
    bench.push(settings(LANE, 1))

    assert isinstance(refused, Failed)
    assert kept == 1
    assert isinstance(bench.acquire(session, LANE), Granted)
    assert reason(bench.acquire(session, LANE)) is Reason.LANE_FULL


def test_a_removed_key_denies_its_waiters():
    bench = Bench(settings(STAGE, 1, max_wait=5.0), keys=(key("red"),))
    session = bench.session()
    bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE, key_sha256=sha("red"))
    bench.change(removed_key_ids=("red",))

    assert reason(answer_to(session, waiting)) is Reason.KEY_UNKNOWN


def test_a_delta_on_another_version_changes_nothing():
    bench = lane(1)
    bench.version = 7
    with pytest.raises(PolicyError) as caught:
        bench.change(removed_key_ids=("red",))

    assert caught.value.field == ""


# --- sessions --------------------------------------------------------------------------------------------------------


def test_a_silent_session_ends_after_ttl_and_grace_and_not_before():
    bench = lane(1)
    session = bench.session()
    bench.grant(session, LANE)
    bench.wait(16.9)
    before = bench.held(LANE)
    bench.wait(0.6)

    assert before == 1
    assert bench.held(LANE) == 0
    assert [event.reclaimed for event in bench.events() if isinstance(event, SessionEnded)] == [1]


def test_a_heartbeat_renews_all_leases_at_once():
    bench = lane(0)
    session = bench.session()
    granted = [bench.grant(session, LANE) for _ in range(50)]
    for _ in range(10):
        bench.wait(5.0)
        bench.beat(session, *granted)

    assert bench.held(LANE) == 50


def test_a_pause_of_the_server_ends_nobody():
    bench = lane(1)
    session = bench.session()
    bench.grant(session, LANE)
    bench.wait(10.0)
    bench.clock += 3600.0
    bench.ledger.tick()
    bench.wait(6.0)
    alive = bench.held(LANE)
    bench.wait(1.5)

    assert alive == 1
    assert bench.held(LANE) == 0


def test_time_goes_on_for_a_server_that_is_late_all_the_time():
    bench = Bench(settings(STAGE, 1, max_wait=2.0))
    session = bench.session()
    bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE)
    for _ in range(5):
        bench.clock += 0.6
        bench.ledger.tick()
    answer = answer_to(session, waiting)
    for _ in range(60):
        bench.clock += 0.6
        bench.ledger.tick()

    assert reason(answer) is Reason.STAGE_FULL
    assert not bench.ledger.sessions


def test_a_pause_extends_waits_as_well():
    bench = Bench(settings(STAGE, 1, max_wait=2.0))
    session = bench.session()
    bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE)
    bench.wait(1.0)
    bench.clock += 100.0
    bench.ledger.tick()

    assert answer_to(session, waiting) is None


def test_a_superseded_session_cannot_come_back():
    bench = lane(1)
    old = bench.session(session_id="old_session")
    bench.grant(old, LANE)
    bench.session(session_id="new_session")

    assert bench.held(LANE) == 0
    with pytest.raises(SessionRefused) as caught:
        bench.session(session_id="old_session")
    assert caught.value.reason is EndReason.SUPERSEDED


def test_the_number_of_sessions_is_bounded():
    bench = Bench(settings(LANE, 1), terms=Terms(sessions=2))
    bench.session("edge-1/0")
    bench.session("edge-2/0")

    with pytest.raises(SessionRefused) as caught:
        bench.session("edge-3/0")
    assert caught.value.full


def test_an_overheld_lease_ends_and_its_holder_is_told():
    bench = Bench(settings(STAGE, 1, max_hold=300.0))
    session = bench.session()
    granted = bench.grant(session, STAGE)
    for _ in range(31):
        bench.beat(session, granted)
        bench.wait(10.0)
    mail = session.take_mail()

    assert mail.ended == [(granted.leases[0].lease_id, EndReason.OVERHELD)]
    assert bench.held(STAGE) == 0
    assert [event.reason for event in bench.events() if isinstance(event, LeaseReclaimed)] == [EndReason.OVERHELD]


def test_a_lease_that_ended_here_is_no_difference_until_the_holder_was_told():
    bench = Bench(settings(STAGE, 1, max_hold=10.0))
    session = bench.session()
    granted = bench.grant(session, STAGE)
    session.answers.append(granted)
    session.take_mail()
    bench.beat(session, granted)
    bench.wait(12.0)
    not_told = bench.beat(session, granted)
    session.take_mail()
    on_its_way = bench.beat(session, granted, seen=session.number - 1)
    told = bench.beat(session)

    assert (not_told, on_its_way, told) == (False, False, False)


def test_what_the_holder_has_not_seen_yet_is_no_difference():
    bench = lane(0)
    session = bench.session()
    first = bench.grant(session, LANE)
    session.answers.append(first)
    session.take_mail()
    bench.grant(session, LANE)

    assert bench.beat(session, first) is False
    assert bench.beat(session) is True


def test_a_lapsed_session_claims_what_it_runs_as_overdraft_and_nothing_new_is_granted():
    bench = lane(1)
    lapsed = bench.session("edge-1/0", session_id="lapsed_1")
    mine = bench.grant(lapsed, LANE)
    bench.wait(18.0)
    other = bench.session("edge-2/0")
    theirs = bench.grant(other, LANE)
    claim = HeldLease(lease_id=mine.leases[0].lease_id, resource=LANE, request_id="r1")
    opened = bench.ledger.open(
        "lapsed_1", instance="edge-1/0", role="edge", held=HeldList(seen=0, leases=(claim,)), epoch=3
    )
    overdraft = bench.ledger.catalogue.resources[LANE].overdraft
    bench.release(other, theirs)
    refused = bench.refuse(other, LANE)
    bench.ledger.release(opened.session, [claim.lease_id])

    assert opened.dropped == ()
    assert overdraft == 1
    assert refused.reason is Reason.LANE_FULL
    assert isinstance(bench.acquire(other, LANE), Granted)


def test_a_session_that_never_lapsed_cannot_claim():
    bench = lane(5)
    session = bench.session()
    claim = HeldLease(lease_id=(3 << 40) + 999, resource=LANE)
    dropped = bench.ledger._resync(session, HeldList(seen=0, leases=(claim,)), bench.clock)

    assert dropped == (claim.lease_id,)
    assert [event.dropped for event in bench.events() if isinstance(event, Resynced)] == [1]


def test_recovery_lasts_until_everybody_is_back_or_the_time_is_over():
    clock = [50.0]
    ledger = Ledger(
        epoch=9, clock=lambda: clock[0], random=Random(1), terms=Terms(),
        remembered={"one": "edge-1/0", "two": "edge-2/0", "three": "edge-3/0", "four": "edge-4/0"},
    )  # fmt: skip
    ledger.open("one", instance="edge-1/0", role="edge")
    ledger.open("two_again", instance="edge-2/0", role="edge")
    ledger.forget("three")
    missing = dict(ledger.recovering)
    for _ in range(35):
        clock[0] += 0.5
        ledger.tick()

    assert missing == {"four": "edge-4/0"}
    assert not ledger.recovering


def test_forgetting_an_unknown_session_says_so():
    assert lane(1).ledger.forget("nobody") is None


def test_draining_answers_everybody_who_waits_and_asks():
    bench = Bench(settings(STAGE, 1, max_wait=30.0))
    session = bench.session()
    bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE)
    bench.ledger.drain()

    assert reason(answer_to(session, waiting)) is Reason.DRAINING
    assert bench.refuse(session, STAGE).reason is Reason.DRAINING
    assert bench.held(STAGE) == 1


def test_every_denial_that_waiting_can_mend_says_for_how_long():
    bench = Bench(settings(STAGE, 1), settings(CREATES, 1))
    session = bench.session()
    bench.grant(session, STAGE)

    retry_after = bench.refuse(session, STAGE).retry_after
    assert retry_after is not None
    assert 1 <= retry_after <= 32


# --- what a policy does not know -------------------------------------------------------------------------------------


def claims(*names: str, epoch: int = 2) -> HeldList:
    return HeldList(
        seen=0,
        leases=tuple(HeldLease(lease_id=(epoch << 40) + i, resource=name) for i, name in enumerate(names, start=1)),
    )


def test_what_a_holder_claims_on_unknown_names_is_gone_with_its_last_lease():
    bench = lane(1)
    before = set(bench.ledger.catalogue.resources), set(bench.ledger.catalogue.families)
    for i in range(3):
        held = claims(f"lanes/mine_{i}", f"stages/mine_{i}", f"accounts/gone_{i}/streams", f"keys/gone_{i}/streams")
        session = bench.ledger.open(f"session_{i}", instance="edge-1/0", role="edge", held=held).session
        assert len(session.leases) == 4
        bench.ledger.close(session)

    assert (set(bench.ledger.catalogue.resources), set(bench.ledger.catalogue.families)) == before


def test_a_resource_that_was_claimed_before_its_policy_came_is_the_policys_from_then_on():
    bench = Bench(settings("lanes/other", 1))
    bench.ledger.open("session_1", instance="edge-1/0", role="edge", held=claims(LANE))
    closed = bench.ledger.catalogue.resources[LANE].settings.paused
    bench.push(settings(LANE, 2), fair_share_threshold_percent=0)
    session = bench.session("edge-2/0")
    bench.grant(session, LANE)
    denied = bench.refuse(session, LANE)

    assert closed
    assert (denied.reason, denied.held) == (Reason.LANE_FULL, 2)
    assert bench.ledger.catalogue.families[LANE].denied == {Reason.LANE_FULL: 1}


def test_a_lease_that_was_adopted_is_overheld_by_its_own_age():
    bench = Bench(settings(STAGE, 10, max_hold=300.0))
    young = bench.session()
    bench.grant(young, STAGE)
    old = HeldLease(lease_id=(2 << 40) + 1, resource=STAGE, request_id="old", age=1000.0)
    bench.ledger.open("session_2", instance="edge-2/0", role="edge", held=HeldList(seen=0, leases=(old,)))
    bench.events()
    bench.wait(1.5)

    assert [e.lease.lease_id for e in bench.events() if isinstance(e, LeaseReclaimed)] == [old.lease_id]
    assert bench.held(STAGE) == 1


def test_all_leases_of_an_adopted_acquire_are_released_by_its_request_id():
    bench = Bench(settings(STAGE, 5), settings("stages/compact", 5))
    held = HeldList(
        seen=0,
        leases=tuple(
            HeldLease(lease_id=(2 << 40) + i, resource=name, request_id="turn-7")
            for i, name in enumerate((STAGE, "stages/compact"), start=1)
        ),
    )
    session = bench.ledger.open("session_1", instance="edge-1/0", role="edge", held=held).session
    ended = bench.ledger.release(session, request_id="turn-7")

    assert ended == 2
    assert not session.leases
    assert (session.known_count, session.known_digest) == (0, 0)


def test_a_session_of_unary_calls_holds_no_more_than_a_heartbeat_can_name():
    bench = Bench(settings(LANE, 0), terms=Terms(unary_leases=2))
    session = bench.ledger.open("session_1", instance="script", role="edge", unary=True).session
    bench.grant(session, LANE)
    bench.grant(session, LANE)
    refused = bench.refuse(session, LANE)

    assert refused.reason is Reason.SESSION_FULL
    assert isinstance(bench.acquire(bench.session(), LANE), Granted)


def test_a_lowered_queue_limit_sends_nobody_away_and_lets_nobody_else_in():
    bench = Bench(settings(STAGE, 1, max_wait=5.0, queue_limit=2))
    session = bench.session()
    held = bench.grant(session, STAGE)
    waiting = [bench.ask(session, STAGE) for _ in range(2)]
    bench.push(settings(STAGE, 1, max_wait=5.0, queue_limit=1))
    refused = bench.refuse(session, STAGE)
    bench.push(settings(STAGE, 1, max_wait=5.0, queue_limit=3))
    third = bench.acquire(session, STAGE)
    bench.release(session, held)

    assert refused.reason is Reason.QUEUE_FULL
    assert third is None
    assert isinstance(answer_to(session, waiting[0]), Granted)


@pytest.mark.parametrize(("max_wait", "answered_after"), [(1.0, 1.0), (8.0, 8.0)])
def test_a_changed_max_wait_holds_for_those_who_wait_already(max_wait, answered_after):
    bench = Bench(settings(STAGE, 1, max_wait=4.0))
    session = bench.session()
    bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE)
    bench.wait(0.5)
    bench.push(settings(STAGE, 1, max_wait=max_wait))
    bench.wait(answered_after - 0.7)
    bench.beat(session)
    too_early = answer_to(session, waiting)
    bench.wait(0.4)

    assert too_early is None
    assert reason(answer_to(session, waiting)) is Reason.STAGE_FULL


def test_a_max_wait_that_became_nothing_answers_those_who_wait_at_once():
    bench = Bench(settings(STAGE, 1, max_wait=4.0))
    session = bench.session()
    bench.grant(session, STAGE)
    waiting = bench.ask(session, STAGE)
    bench.push(settings(STAGE, 1))

    assert reason(answer_to(session, waiting)) is Reason.STAGE_FULL
