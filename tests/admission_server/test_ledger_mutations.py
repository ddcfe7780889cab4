"""Proof that the games notice: each rule is taken out once, and a seeded game must break."""

import pytest

from admission_server import catalogue
from admission_server.catalogue import Catalogue
from admission_server.ledger import Ledger
from admission_server.resources import Resource
from admission_server.selection import Pool
from admission_server.sessions import Buckets, Session
from tests.admission_server.world import play

SEEDS = range(200)


def cut_the_grace(monkeypatch):
    put = Buckets.put
    monkeypatch.setattr(Buckets, "put", lambda self, session, at: put(self, session, at - 1.5))


def forget_withdrawals(monkeypatch):
    monkeypatch.setattr(Session, "remember_withdrawal", lambda self, request_id: self.requests.pop(request_id, None))


def take_everything_as_seen(monkeypatch):
    acknowledge = Session.acknowledge

    def all_of_it(self, _seen):
        for grant in self.unseen.values():
            grant.number = min(grant.number, self.number)
        acknowledge(self, self.number)

    monkeypatch.setattr(Session, "acknowledge", all_of_it)


def let_old_incarnations_live(monkeypatch):
    monkeypatch.setattr(Ledger, "_supersede", lambda self, instance: None)


def take_a_lane_together_with_work(monkeypatch):
    monkeypatch.setattr(catalogue, "_check_lane_alone", lambda parts: None)


def wake_nobody(monkeypatch):
    monkeypatch.setattr(Ledger, "_wake", lambda self, resource, now: None)


def take_accounts_for_full_that_a_waiter_does_not_avoid(monkeypatch):
    is_open = Pool.is_open
    monkeypatch.setattr(Pool, "is_open", lambda self, avoid=(): is_open(self, self.members if avoid else ()))


def leave_those_waiting_when_an_account_comes_back(monkeypatch):
    monkeypatch.setattr(Ledger, "_wake_account", lambda self, account, now: None)


def allow_one_seat_too_many(monkeypatch):
    configure = Resource.configure

    def generous(self, settings, *, fair_share_threshold_percent):
        configure(self, settings, fair_share_threshold_percent=fair_share_threshold_percent)
        self.ceilings = (self.ceilings[0] + 1, self.ceilings[1] + 1)

    monkeypatch.setattr(Resource, "configure", generous)


def count_pauses_as_time(monkeypatch):
    monkeypatch.setattr("admission_server.ledger.PAUSE", 1e9)


def decide_while_recovering(monkeypatch):
    monkeypatch.setattr(Ledger, "_refuse_or_park", lambda self, session, acquire, now: _decide(self, session, acquire))


def _decide(ledger, session, acquire):
    recovering, ledger.recovering = ledger.recovering, {}
    if ledger.catalogue.version:
        ledger.acquire(session, acquire)
    ledger.recovering = recovering


def forget_seats_of_removed_resources(monkeypatch):
    monkeypatch.setattr(Catalogue, "forget_unused", lambda self, resource: self.resources.pop(resource.name, None))


def answer_repeats_anew(monkeypatch):
    acquire = Ledger.acquire

    def anew(self, session, request):
        session.requests.pop(request.request_id, None)
        acquire(self, session, request)

    monkeypatch.setattr(Ledger, "acquire", anew)


MUTATIONS = (
    cut_the_grace,
    forget_withdrawals,
    take_everything_as_seen,
    let_old_incarnations_live,
    take_a_lane_together_with_work,
    wake_nobody,
    take_accounts_for_full_that_a_waiter_does_not_avoid,
    leave_those_waiting_when_an_account_comes_back,
    allow_one_seat_too_many,
    count_pauses_as_time,
    decide_while_recovering,
    forget_seats_of_removed_resources,
    answer_repeats_anew,
)


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_a_ledger_without_this_rule_is_caught(mutate, monkeypatch):
    mutate(monkeypatch)

    with pytest.raises((AssertionError, KeyError)):
        _play_all()


def _play_all():
    for seed in SEEDS:
        play(seed)
