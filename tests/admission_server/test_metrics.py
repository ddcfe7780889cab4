import math

import pytest
from prometheus_client import CollectorRegistry

from admission_server.accounts import Report
from admission_server.decisions import EndReason, HeldLease, HeldList
from admission_server.ledger import Terms
from admission_server.metrics import LedgerMetrics, LoopLag
from admission_server.signals import SignalBoard
from tests.admission_server.bench import LANE, Bench, key, settings, sha


class Scraped:
    """What a scrape of a bench shows."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.signals = SignalBoard()
        self.lag = LoopLag()
        self.registry = CollectorRegistry()
        LedgerMetrics.register(self.registry, bench.ledger, self.signals, self.lag)

    def __call__(self, name: str, **labels: str) -> float | None:
        """Returns a sample, None without one."""
        return self.registry.get_sample_value(f"sluicegate_admission_{name}", labels)

    def denied(self, reason: str, resource: str = LANE) -> float | None:
        """Returns how many acquires of a resource were denied for a reason."""
        return self("decisions_total", resource=resource, outcome="denied", reason=reason)


@pytest.fixture
def bench():
    return Bench(
        settings(LANE, 1),
        keys=(key("old", expires_in=0.0), key("narrow", models=("a",))),
        fair_share_threshold_percent=0,
    )


def test_denials_before_the_key_is_known_are_counted_for_the_resource_that_was_asked_for(bench):
    scraped = Scraped(bench)
    session = bench.session()
    bench.refuse(session, LANE, key_sha256=sha("nobody"))
    bench.refuse(session, LANE, key_sha256=sha("old"))
    bench.ledger.overloaded = True
    bench.refuse(session, LANE)
    bench.ledger.overloaded = False
    bench.ledger.release(session, request_id="early")
    bench.refuse(session, LANE, request_id="early")
    bench.refuse(session, "lanes/nowhere", key_sha256=sha("nobody"))
    bench.ledger.drain()
    bench.refuse(session, LANE)

    assert [scraped.denied(reason) for reason in ("key_expired", "server_overloaded", "withdrawn", "draining")] == [
        1
    ] * 4
    assert (scraped.denied("key_unknown"), scraped.denied("key_unknown", "other")) == (1, 1)


def test_names_that_holders_choose_are_one_label(bench):
    scraped = Scraped(bench)
    held = HeldList(seen=0, leases=tuple(HeldLease(lease_id=i, resource=f"lanes/mine_{i}") for i in (1, 2)))
    bench.ledger.open("session_1", instance="edge-1/0", role="edge", held=held)

    assert scraped("seats_held", resource="other") == 2
    assert scraped("seats_held", resource="lanes/mine_1") is None


def test_what_was_taken_back_is_counted_by_cause(bench):
    scraped = Scraped(bench)
    session = bench.session()
    bench.ask(session, LANE)
    session.take_mail()
    asked = bench.beat(session)
    bench.wait(Terms().ttl + Terms().grace + 1)

    assert asked
    assert scraped("digest_mismatches_total") == 1
    assert scraped("seats_reclaimed_total", cause=EndReason.EXPIRED.value) == 1
    assert scraped("sessions_ended_total", how=EndReason.EXPIRED.value) == 1
    assert scraped("sessions") == 0


def test_overdraft_and_adopted_seats_are_shown(bench):
    scraped = Scraped(bench)
    held = HeldList(seen=0, leases=tuple(HeldLease(lease_id=i, resource=LANE) for i in (1, 2, 3)))
    bench.ledger.open("session_1", instance="edge-1/0", role="edge", held=held)

    assert scraped("seats_overdraft", resource=LANE) == 2
    assert scraped("seats_adopted_total") == 3


def test_the_age_of_the_policy_and_pending_signals_are_shown(bench):
    scraped = Scraped(bench)
    before = scraped("policy_age_seconds")
    scraped.lag.policy_applied_at = bench.ledger.now()
    scraped.signals.record(Report(account_id="one"), bench.ledger.report(Report(account_id="one")), 0.0)
    bench.wait(5.0)

    assert before is not None
    assert math.isnan(before)
    assert scraped("policy_age_seconds") == pytest.approx(5.0)
    assert scraped("signals_pending") == 1


def test_the_worst_lag_is_shown_to_every_scrape_of_its_minute_and_then_forgotten(bench):
    scraped = Scraped(bench)
    scraped.lag.note(0.7, 100.0)
    scraped.lag.note(0.1, 101.0)
    twice = [scraped("loop_lag_seconds") for _ in range(2)]
    scraped.lag.note(0.2, 161.0)
    in_the_next = scraped("loop_lag_seconds")
    scraped.lag.note(0.3, 222.0)
    later = scraped("loop_lag_seconds")
    scraped.lag.note(0.0, 900.0)

    assert twice == [0.7, 0.7]
    assert (in_the_next, later, scraped("loop_lag_seconds")) == (0.7, 0.3, 0.0)
