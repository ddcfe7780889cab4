"""What an event costs while many wait: it looks at those whom it may help, and not at the others.

Cost is counted in calls of functions, which is the same on every machine and at every load.
"""

import sys
from contextlib import contextmanager

import pytest

from admission_server.accounts import Outcome, Report
from admission_server.decisions import AccountNeeds, Denied, Reason
from admission_server.policy import Status
from tests.admission_server.bench import CREATES, STAGE, STREAMS, Bench, account, settings

WAITERS = 900
FLOWS = 9
WORK = (STAGE, STREAMS, CREATES)
ONE_STANDING = 4
"""Calls of functions that it takes to look at one account."""
FEW = 300
"""Calls of functions that one event may cost: some twenty looks at one acquire."""


@contextmanager
def counted_calls():
    """Yields a list that holds, after the block, how many functions were called in it."""
    calls = 0
    told: list[int] = []

    def note(_frame, event, _argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(note)
    try:
        yield told
    finally:
        sys.setprofile(None)
        told.append(calls)


def bench_of(*accounts, streams=1):
    resources = (settings(STAGE, 0, max_wait=2.0), settings(STREAMS, streams, max_wait=10.0), settings(CREATES, 0))
    return Bench(*resources, accounts=accounts)


def let_wait(bench, session, **needs):
    """Lets many acquires of several flows wait for an account."""
    for i in range(WAITERS):
        bench.ask(session, *WORK, peer=f"peer-{i % FLOWS}", needs=AccountNeeds(**needs))
    assert bench.ledger.waiting == WAITERS


def test_a_seat_that_everybody_avoids_wakes_nobody():
    bench = bench_of(account("acc_1"), account("acc_2"))
    session = bench.session()
    only = bench.grant(session, *WORK, needs=AccountNeeds(avoid_account_ids=("acc_2",)))
    bench.grant(session, *WORK, needs=AccountNeeds())
    let_wait(bench, session, avoid_account_ids=("acc_1",))
    with counted_calls() as calls:
        bench.release(session, only)

    assert bench.ledger.waiting == WAITERS
    assert calls[0] < FEW


def test_a_seat_that_one_of_many_may_use_is_granted_to_that_one():
    bench = bench_of(account("acc_1"), account("acc_2"))
    session = bench.session()
    only = bench.grant(session, *WORK, needs=AccountNeeds(avoid_account_ids=("acc_2",)))
    bench.grant(session, *WORK, needs=AccountNeeds())
    let_wait(bench, session, avoid_account_ids=("acc_1",))
    free = bench.ask(session, *WORK, needs=AccountNeeds())
    with counted_calls() as calls:
        bench.release(session, only)

    assert session.requests[free].account_id == "acc_1"
    assert bench.ledger.waiting == WAITERS
    assert calls[0] < FEW


@pytest.mark.parametrize("event", ["report", "change"])
def test_accounts_without_a_credential_are_not_looked_at_for_every_waiter(event):
    bench = bench_of(*(account(f"acc_{i}", access_token="") for i in range(500)))
    session = bench.session()
    let_wait(bench, session)
    with counted_calls() as calls:
        if event == "report":
            bench.ledger.report(Report(account_id="acc_7", outcome=Outcome.RATE_LIMITED, resets_after=60.0))
        else:
            bench.change(accounts=(account("acc_7", access_token="", weight=2.0),))

    assert bench.ledger.waiting == WAITERS
    assert calls[0] < 500 * ONE_STANDING + FEW, "each account is looked at once, whoever waits"


def test_a_credential_that_comes_is_given_to_those_who_wait_and_the_others_are_left_alone():
    bench = bench_of(*(account(f"acc_{i}", access_token="") for i in range(500)))
    session = bench.session()
    let_wait(bench, session)
    with counted_calls() as calls:
        bench.change(accounts=(account("acc_7", credential_version=2),))

    assert bench.ledger.waiting == WAITERS - 1
    assert calls[0] < FEW


def test_a_pool_whose_last_account_is_lost_answers_everybody_at_once_with_one_look_at_it():
    accounts = [account(f"acc_{i}", status=Status.REAUTH_REQUIRED) for i in range(499)]
    bench = bench_of(account("acc_last"), *accounts)
    session = bench.session()
    bench.grant(session, *WORK, needs=AccountNeeds())
    let_wait(bench, session)
    session.answers.clear()
    with counted_calls() as calls:
        bench.change(accounts=(account("acc_last", status=Status.REAUTH_REQUIRED),))

    denied = [answer for answer in session.answers if isinstance(answer, Denied)]
    assert {answer.reason for answer in denied} == {Reason.CREDENTIAL_UNAVAILABLE}
    assert len(denied) == WAITERS
    assert calls[0] < WAITERS * 60


def test_a_full_account_that_many_are_bound_to_wakes_nobody_when_only_its_weight_changes():
    bench = bench_of(account("acc_1"), account("acc_2"))
    session = bench.session()
    bench.grant(session, *WORK, needs=AccountNeeds(required_account_id="acc_1"))
    let_wait(bench, session, required_account_id="acc_1")
    with counted_calls() as calls:
        bench.change(accounts=(account("acc_1", weight=2.0),))

    assert bench.ledger.waiting == WAITERS
    assert calls[0] < FEW
