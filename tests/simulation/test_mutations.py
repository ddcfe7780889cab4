"""The simulation would notice: each rule of the protocol is taken out in turn, and some seed must fail for it."""

from dataclasses import replace

import pytest

from admission_client.holder import Holder
from admission_client.sync import SyncClient
from admission_server.control_servicer import ControlServicer
from admission_server.delivery import Delivery
from admission_server.ledger import Ledger
from admission_server.outbox import Outbox
from admission_server.registry import Registry
from admission_server.sessions import Session
from tests.simulation import server
from tests.simulation.scenario import Scenario

FIRST, WITHIN = 350, 150
"""Seeds in which a missing rule must show."""


def no_grace(patch):
    patch.setattr(server, "TERMS", replace(server.TERMS, grace=0.0))


def no_stop_without_acknowledgement(patch):
    patch.setattr(Holder, "live", property(lambda holder: holder.lease_count > 0))


def no_repeated_releases(patch):
    disconnected = Holder.disconnected

    def forgets(holder):
        disconnected(holder)
        holder._saying.lease_ids.clear()

    patch.setattr(Holder, "disconnected", forgets)


def no_repeated_acquires(patch):
    hello = Holder.hello

    def asks_nothing_again(holder):
        message = hello(holder)
        message.ClearField("acquires")
        return message

    patch.setattr(Holder, "hello", asks_nothing_again)
    patch.setattr(Session, "resend_after", lambda _session, _seen: None)


def no_seen(patch):
    received = Holder.received

    def skips(holder, message):
        received(holder, message)
        holder.seen = message.number + 1

    patch.setattr(Holder, "received", skips)
    # A number beyond what was sent is cut back; so a holder that claims to have seen the next message always does.
    patch.setattr(Session, "acknowledge", _acknowledges_everything(Session.acknowledge))


def _acknowledges_everything(acknowledge):
    def everything(session, _seen):
        acknowledge(session, session.number)

    return everything


def no_memory_of_who_was_there(patch):
    init = Ledger.__init__
    patch.setattr(Ledger, "__init__", lambda ledger, **given: init(ledger, **(given | {"remembered": {}})))


def no_adoption(patch):
    patch.setattr(Ledger, "_adopt", lambda _ledger, _session, _claim, _now: False)


def no_wake_up(patch):
    patch.setattr(Ledger, "_wake", lambda _ledger, _resource, _now: None)


def no_end_of_silent_sessions(patch):
    patch.setattr(Ledger, "renew", lambda ledger, session: ledger._buckets.put(session, ledger.now() + 1000.0))


def no_limit(patch):
    patch.setattr(Ledger, "_first_full", lambda _ledger, _resources, _waiter: None)


def no_fencing(patch):
    attach = Delivery.attach

    def attaches_beside(delivery, stream):
        attach(delivery, stream)

    patch.setattr(Delivery, "attach", attaches_beside)


def no_terms(patch):
    hello = ControlServicer._hello

    async def takes_any_term(servicer, requests, context):
        servicer._term = 0
        return await hello(servicer, requests, context)

    patch.setattr(ControlServicer, "_hello", takes_any_term)


def no_signals_again(patch):
    take = Outbox.take

    def takes_for_good(outbox, now):
        taken = take(outbox, now)
        outbox.acknowledge([entry.sent for entry in taken])
        return taken

    patch.setattr(Outbox, "take", takes_for_good)


def no_start_over_for_a_new_controller(patch):
    patch.setattr(Outbox, "start_over", lambda _outbox: None)
    patch.setattr("admission_server.outbox.AGAIN_AFTER", 1e9)


def no_snapshot_for_a_new_epoch(patch):
    change_to = SyncClient._change_to

    def always_a_difference(client, policy):
        client._in_force = client._in_force or client._accepted
        return change_to(client, policy)

    patch.setattr(SyncClient, "_change_to", always_a_difference)


def no_forgetting(patch):
    patch.setattr(Ledger, "forget", lambda _ledger, _session_id: 0)


def no_sessions_on_disk(patch):
    write = Registry._write
    patch.setattr(Registry, "_write", lambda registry, _sessions: write(registry, {}))


def no_waiting_for_the_disk(patch):
    async def later(_registry, _sessions):
        return

    patch.setattr(Registry, "save", later)


def no_wake_up_when_an_account_comes_back(patch):
    patch.setattr(Ledger, "_wake_account", lambda _ledger, _account, _now: None)


MUTATIONS = [
    no_grace,
    no_stop_without_acknowledgement,
    no_repeated_releases,
    no_repeated_acquires,
    no_seen,
    no_memory_of_who_was_there,
    no_adoption,
    no_wake_up,
    no_end_of_silent_sessions,
    no_limit,
    no_fencing,
    no_terms,
    no_signals_again,
    no_start_over_for_a_new_controller,
    no_snapshot_for_a_new_epoch,
    no_forgetting,
    no_sessions_on_disk,
    no_waiting_for_the_disk,
    no_wake_up_when_an_account_comes_back,
]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_missing_rule_shows(mutate, monkeypatch):
    mutate(monkeypatch)
    problems = (Scenario(seed).play().problem for seed in range(FIRST, FIRST + WITHIN))

    assert any(problems), "no seed has noticed"
