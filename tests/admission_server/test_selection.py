from collections import Counter
from random import Random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from admission_server.accounts import Outcome, Report
from admission_server.decisions import AccountNeeds, Denied, Reason
from admission_server.policy import PolicyError, Status, Strategy
from admission_server.resources import Granted
from admission_server.selection import LongestAgo, WeightedDraw
from tests.admission_server.bench import (
    CREATES,
    STREAMS,
    Bench,
    account,
    account_of,
    answer_to,
    key,
    reason,
    settings,
    sha,
)


def pool(*accounts: Any, limit: int = 8, max_wait: float = 10.0, reserve: int = 0, **policy: Any) -> Bench:
    return Bench(
        settings(STREAMS, limit, max_wait=max_wait, reserve=reserve),
        settings(CREATES, 4, max_wait=max_wait),
        accounts=accounts,
        **policy,
    )


def tell(bench: Bench, account_id: str, outcome: Outcome, **fields: Any) -> None:
    values: dict[str, Any] = {"credential_version": 1}
    bench.ledger.report(Report(account_id=account_id, outcome=outcome, **(values | fields)))


# --- strategies ------------------------------------------------------------------------------------------------------


def test_bursts_spread_over_equal_accounts():
    bench = pool(*(account(f"a{i}") for i in range(10)), limit=8)
    session = bench.session()
    taken = Counter(account_of(bench.turn(session)) for _ in range(40))

    assert len(taken) == 10
    assert max(taken.values()) <= 8


def test_turns_that_come_one_by_one_use_accounts_in_proportion_to_their_capacity():
    bench = pool(account("big", weight=3.0), account("small", weight=1.0))
    session = bench.session()
    taken: Counter[str] = Counter()
    for _ in range(2000):
        granted = bench.turn(session)
        assert isinstance(granted, Granted)
        taken[account_of(granted)] += 1
        bench.release(session, granted)

    assert 2.5 <= taken["big"] / taken["small"] <= 3.5


def test_an_account_without_capacity_left_counts_as_very_little():
    bench = pool(account("empty", weight=0.0), account("fresh", weight=50.0), limit=0)
    session = bench.session()

    assert {account_of(bench.turn(session)) for _ in range(50)} == {"fresh"}


def test_round_robin_takes_the_one_that_was_picked_longest_ago():
    bench = pool(account("a"), account("b"), account("c"), strategy=Strategy.ROUND_ROBIN)
    session = bench.session()
    order = [account_of(bench.turn(session)) for _ in range(6)]

    assert order[:3] == order[3:]
    assert set(order) == {"a", "b", "c"}


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0.0, 0.5, 1.0, 7.0])), max_size=40), st.integers())
def test_a_weighted_draw_returns_open_members_only(changes, seed):
    draw = WeightedDraw(7, Random(seed))
    scores = [0.0] * 7
    for index, score in changes:
        draw.set(index, score)
        scores[index] = score
        drawn = draw.draw()

        assert (drawn is None) == (not any(scores))
        assert drawn is None or scores[drawn] > 0


def test_a_weighted_draw_follows_the_weights():
    draw = WeightedDraw(3, Random(5))
    for index, score in enumerate((1.0, 2.0, 7.0)):
        draw.set(index, score)
    drawn = Counter(draw.draw() for _ in range(5000))

    assert 0.15 < drawn[1] / 5000 < 0.25
    assert 0.65 < drawn[2] / 5000 < 0.75


def test_longest_ago_skips_what_is_closed():
    class Member:
        def __init__(self, last_picked: int) -> None:
            self.last_picked = last_picked

    members: Any = [Member(3), Member(1), Member(2)]
    ranking = LongestAgo(members)
    for index in range(3):
        ranking.set(index, 1.0)
    first = ranking.draw()
    ranking.set(1, 0.0)
    second = ranking.draw()
    ranking.set(1, 1.0)
    members[1].last_picked = 9

    assert (first, second, ranking.draw()) == (1, 2, 2)


# --- filters ---------------------------------------------------------------------------------------------------------


def test_accounts_are_filtered_by_kind_model_and_key_scope():
    bench = pool(
        account("chat", models=("m1",)),
        account("other", kind="api_key"),
        keys=(key("narrow", account_ids=("other",)), key("void", account_ids=("gone",))),
    )
    session = bench.session()

    assert account_of(bench.turn(session, kind="api_key")) == "other"
    assert account_of(bench.turn(session, model="m1", kind="chatgpt")) == "chat"
    assert account_of(bench.turn(session, model="m2")) == "other"
    assert account_of(bench.turn(session, key_sha256=sha("narrow"))) == "other"
    assert reason(bench.turn(session, model="m2", kind="chatgpt")) is Reason.UNSUPPORTED_BY_ACCOUNT
    assert reason(bench.turn(session, key_sha256=sha("void"))) is Reason.NO_ACCOUNT


def test_without_accounts_there_is_none():
    bench = pool()

    assert reason(bench.turn(bench.session())) is Reason.NO_ACCOUNT


def test_accounts_that_failed_this_request_are_avoided():
    bench = pool(account("a"), account("b"))
    session = bench.session()

    assert {account_of(bench.turn(session, avoid_account_ids=("a",))) for _ in range(6)} == {"b"}
    assert reason(bench.turn(session, avoid_account_ids=("a", "b"))) is Reason.COOLING_DOWN


@pytest.mark.parametrize(
    ("others", "expected", "retry_after"),
    [
        ({"status": Status.QUOTA_EXCEEDED, "blocked_for": 7200.0}, Reason.QUOTA_EXHAUSTED, 7200.0),
        ({"status": Status.RATE_LIMITED, "blocked_for": 60.0}, Reason.COOLING_DOWN, 60.0),
        ({"status": Status.RATE_LIMITED, "blocked_for": 7200.0}, Reason.QUOTA_EXHAUSTED, 7200.0),
        ({"status": Status.PAUSED}, Reason.NO_ACCOUNT, None),
    ],
)
def test_a_pool_that_cannot_serve_says_why_and_until_when(others, expected, retry_after):
    bench = pool(account("a", **others), account("b", **others))
    denied = bench.turn(bench.session())

    assert isinstance(denied, Denied)
    assert (denied.reason, denied.retry_after) == (expected, retry_after)


def test_a_short_cooldown_is_waited_for():
    bench = pool(account("a"))
    session = bench.session()
    tell(bench, "a", Outcome.RATE_LIMITED)
    waiting = bench.ask(session, STREAMS, needs=AccountNeeds())
    bench.wait(2.2)

    assert isinstance(answer_to(session, waiting), Granted)


def test_a_full_pool_is_waited_for_and_then_refused_for_the_family_that_is_full():
    bench = pool(account("a"), account("b"), limit=1, max_wait=3.0)
    session = bench.session()
    bench.turn(session)
    bench.turn(session)
    waiting = bench.ask(session, STREAMS, needs=AccountNeeds())
    bench.wait(3.2)
    denied = answer_to(session, waiting)

    assert isinstance(denied, Denied)
    assert denied.reason is Reason.ACCOUNT_STREAMS_FULL
    assert (denied.resource, denied.limit, denied.held) == (STREAMS, 2, 2)


def test_a_pool_whose_second_family_is_full_says_so():
    bench = pool(account("a"), limit=8, max_wait=1.0)
    session = bench.session()
    for _ in range(4):
        bench.grant(session, STREAMS, CREATES, needs=AccountNeeds())
    waiting = bench.ask(session, STREAMS, CREATES, needs=AccountNeeds())
    bench.wait(1.2)

    assert reason(answer_to(session, waiting)) is Reason.ACCOUNT_RESPONSE_CREATES_FULL


def test_a_seat_of_any_account_wakes_who_waits_for_any():
    bench = pool(account("a"), account("b"), limit=1)
    session = bench.session()
    grants = [bench.turn(session), bench.turn(session)]
    waiting = bench.ask(session, STREAMS, needs=AccountNeeds())
    freed = next(g for g in grants if account_of(g) == "b")
    assert isinstance(freed, Granted)
    bench.release(session, freed)

    assert account_of(answer_to(session, waiting)) == "b"


def test_caps_of_its_own_count_for_an_account():
    bench = pool(account("small", caps=(settings(STREAMS, 1),)), account("big"), limit=3)
    session = bench.session()
    taken = Counter(account_of(bench.turn(session)) for _ in range(4))

    assert taken == {"small": 1, "big": 3}


def test_one_seat_is_kept_for_turns_that_reattach():
    bench = pool(account("a"), limit=3, reserve=1, max_wait=1.0)
    session = bench.session()
    bench.turn(session)
    bench.turn(session)
    waits = bench.turn(session)
    reattached = bench.turn(session, reattach=True)

    assert waits is None
    assert account_of(reattached) == "a"


def test_a_reserve_never_takes_the_last_seat():
    bench = pool(account("a"), limit=1, reserve=1)

    assert account_of(bench.turn(bench.session())) == "a"


# --- owners and affinity ---------------------------------------------------------------------------------------------


def test_affinity_keeps_a_session_on_its_account_and_spills_once_without_moving():
    bench = pool(account("a"), account("b"), limit=1)
    session = bench.session()
    first = bench.turn(session, affinity_keys=("thread",))
    spilled = bench.turn(session, affinity_keys=("thread",))
    assert isinstance(first, Granted)
    assert isinstance(spilled, Granted)
    bench.release(session, first)
    bench.release(session, spilled)
    third = bench.turn(session, affinity_keys=("thread",))

    assert account_of(spilled) != account_of(first)
    assert account_of(third) == account_of(first)


def test_affinity_moves_when_its_account_cannot_serve():
    bench = pool(account("a"), account("b"))
    session = bench.session()
    first = account_of(bench.turn(session, affinity_keys=("thread",)))
    tell(bench, first, Outcome.QUOTA_EXCEEDED, resets_after=60.0)
    second = account_of(bench.turn(session, affinity_keys=("thread",)))
    bench.wait(61.0)
    bench.session()
    third = account_of(bench.turn(bench.session("edge-2/0"), affinity_keys=("thread",)))

    assert first != second == third


def test_affinity_runs_out_when_it_is_not_used():
    bench = pool(account("a", weight=1e-3), account("b", weight=1e3))
    session = bench.session()
    bench.change(accounts=(account("b", status=Status.PAUSED),))
    bench.turn(session, affinity_keys=("thread",))
    bench.change(accounts=(account("b", weight=1e3),))
    for _ in range(190):
        bench.wait(10.0)
        bench.session()

    assert account_of(bench.turn(bench.session(), affinity_keys=("thread",))) == "b"


def test_affinity_keys_are_kept_apart_by_api_key():
    bench = pool(account("a"), account("b"), keys=(key("red"), key("blue")))
    session = bench.session()
    red = account_of(bench.turn(session, affinity_keys=("t",), key_sha256=sha("red")))
    selector = bench.ledger.catalogue.selector

    assert selector._affinity.get("red", "t", bench.clock) == red
    assert selector._affinity.get("blue", "t", bench.clock) is None


def owned(bench: Bench, account_id: str, owned_key: str) -> None:
    tell(bench, account_id, Outcome.SUCCEEDED, owned_keys=(owned_key,))


def test_a_hard_owner_is_waited_for_and_then_busy():
    bench = pool(account("a"), account("b"), limit=1, max_wait=2.0)
    session = bench.session()
    owned(bench, "a", "resp_1")
    first = bench.turn(session, required_owner_key="resp_1")
    waiting = bench.ask(session, STREAMS, needs=AccountNeeds(required_owner_key="resp_1"))
    bench.wait(2.2)

    assert account_of(first) == "a"
    assert reason(answer_to(session, waiting)) is Reason.OWNER_BUSY


def test_a_hard_owner_may_use_the_seat_that_is_kept():
    bench = pool(account("a"), limit=2, reserve=1)
    session = bench.session()
    owned(bench, "a", "resp_1")
    bench.turn(session)

    assert account_of(bench.turn(session, required_owner_key="resp_1")) == "a"


def test_a_hard_owner_that_cannot_serve_is_gone():
    bench = pool(account("a"), account("b"))
    session = bench.session()
    owned(bench, "a", "resp_1")
    tell(bench, "a", Outcome.QUOTA_EXCEEDED, resets_after=3600.0)

    assert reason(bench.turn(session, required_owner_key="resp_1")) is Reason.OWNER_GONE
    assert reason(bench.turn(session, required_account_id="nobody")) is Reason.OWNER_GONE


def test_an_unknown_owner_key_is_soft():
    bench = pool(account("a"))

    assert account_of(bench.turn(bench.session(), required_owner_key="unknown")) == "a"


def test_owned_keys_of_one_client_do_not_bind_another():
    bench = pool(account("a"), account("b"), keys=(key("red"), key("blue")))
    tell(bench, "a", Outcome.SUCCEEDED, owned_keys=("resp_1",), key_sha256=sha("red"))
    session = bench.session()
    blue = {account_of(bench.turn(session, required_owner_key="resp_1", key_sha256=sha("blue"))) for _ in range(12)}
    red = {account_of(bench.turn(session, required_owner_key="resp_1", key_sha256=sha("red"))) for _ in range(2)}

    assert blue == {"a", "b"}
    assert red == {"a"}


def test_a_preferred_owner_is_waited_for_while_it_serves_and_left_when_it_does_not():
    bench = pool(account("a"), account("b"), limit=1)
    session = bench.session()
    owned(bench, "a", "state_1")
    first = bench.turn(session, preferred_owner_key="state_1")
    waiting = bench.ask(session, STREAMS, needs=AccountNeeds(preferred_owner_key="state_1"))
    still = answer_to(session, waiting)
    tell(bench, "a", Outcome.QUOTA_EXCEEDED, resets_after=3600.0)
    moved = answer_to(session, waiting)

    assert account_of(first) == "a"
    assert still is None
    assert account_of(moved) == "b"
    assert isinstance(moved, Granted)
    assert moved.owner_moved


# --- credentials -----------------------------------------------------------------------------------------------------


def test_a_rejected_version_is_never_granted_again_and_another_account_serves_at_once():
    bench = pool(account("a"), account("b"))
    session = bench.session()
    tell(bench, "a", Outcome.AUTH_REJECTED, status=401)

    assert {account_of(bench.turn(session)) for _ in range(6)} == {"b"}


def test_alone_a_turn_waits_for_the_newer_version():
    bench = pool(account("a"))
    session = bench.session()
    tell(bench, "a", Outcome.AUTH_REJECTED, status=401)
    waiting = bench.ask(session, STREAMS, needs=AccountNeeds())
    bench.wait(1.0)
    before = answer_to(session, waiting)
    bench.change(accounts=(account("a", credential_version=2, access_token="new"),))
    answer = answer_to(session, waiting)

    assert before is None
    assert isinstance(answer, Granted)
    assert answer.credential is not None
    assert answer.credential.access_token == "new"


def test_without_a_newer_version_the_wait_ends_after_ten_seconds():
    bench = pool(account("a"))
    session = bench.session()
    tell(bench, "a", Outcome.AUTH_REJECTED, status=401)
    waiting = bench.ask(session, STREAMS, needs=AccountNeeds())
    bench.wait(10.2)

    assert reason(answer_to(session, waiting)) is Reason.CREDENTIAL_UNAVAILABLE


def test_a_fresh_version_that_is_rejected_is_not_waited_for_and_the_refusal_says_until_when():
    bench = pool(account("a", kind="api_key"))
    tell(bench, "a", Outcome.AUTH_REJECTED, status=401)
    denied = bench.turn(bench.session())

    assert isinstance(denied, Denied)
    assert (denied.reason, denied.retry_after) == (Reason.CREDENTIAL_UNAVAILABLE, 300.0)


def test_accounts_that_somebody_must_sign_in_to_lack_a_credential_and_are_not_waited_for():
    bench = pool(account("a", status=Status.REAUTH_REQUIRED), account("b", status=Status.PAUSED))

    assert reason(bench.turn(bench.session())) is Reason.CREDENTIAL_UNAVAILABLE


def test_a_turn_bound_to_an_account_waits_for_a_version_newer_than_the_one_it_names():
    bench = pool(account("a"), account("b"))
    session = bench.session()
    needs = AccountNeeds(required_account_id="a", newer_than_credential_version=1)
    waiting = bench.ask(session, STREAMS, needs=needs)
    before = answer_to(session, waiting)
    bench.change(accounts=(account("a", credential_version=2),))

    assert before is None
    assert account_of(answer_to(session, waiting)) == "a"


def test_a_new_account_serves_those_who_wait():
    bench = pool(account("a"), limit=1)
    session = bench.session()
    bench.turn(session)
    waiting = bench.ask(session, STREAMS, needs=AccountNeeds())
    bench.change(accounts=(account("new"),))

    assert account_of(answer_to(session, waiting)) == "new"


def test_a_removed_account_serves_nobody_and_its_seats_come_back():
    bench = pool(account("a"))
    session = bench.session()
    granted = bench.turn(session)
    assert isinstance(granted, Granted)
    bench.change(removed_account_ids=("a",))
    denied = bench.turn(session)
    bench.release(session, granted)

    assert reason(denied) is Reason.NO_ACCOUNT
    assert "accounts/a/streams" not in bench.ledger.catalogue.resources


@pytest.mark.parametrize("weight", [1.7e308, 1e13, float("inf"), float("-inf"), float("nan")])
def test_a_weight_that_sums_cannot_hold_is_refused(weight):
    with pytest.raises(PolicyError) as refused:
        Bench(settings(STREAMS, 1), accounts=(account("one", weight=weight),))

    assert refused.value.field == "snapshot.accounts[0].weight"


def test_no_account_is_granted_above_its_limit_however_far_apart_weights_are():
    weights = (1e12, 1e-300, 1e12, 1.0)
    bench = Bench(
        settings(STREAMS, 1), accounts=tuple(account(f"a{i}", weight=weight) for i, weight in enumerate(weights))
    )
    session = bench.session()
    answers = [bench.turn(session) for _ in range(6)]

    assert sorted(account_of(answer) for answer in answers[:4]) == ["a0", "a1", "a2", "a3"]
    assert [reason(answer) for answer in answers[4:]] == [Reason.ACCOUNT_STREAMS_FULL] * 2


def test_a_ranking_that_errs_does_not_grant_a_seat_that_is_taken():
    bench = Bench(settings(STREAMS, 1), accounts=(account("one"),))
    session = bench.session()
    bench.turn(session)
    (pool,) = bench.ledger.catalogue.selector.accounts["one"].pools
    pool.refresh()
    pool._ranking.set(0, 1.0)

    assert pool.draw() is None
