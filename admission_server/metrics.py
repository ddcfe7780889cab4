"""Prometheus metrics: read from the ledger when somebody scrapes, so that counting costs decisions nothing.

Labels are resource families, outcomes and reasons; never ids of accounts, keys or sessions. The registry is passed in.
"""

import math
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from admission_server.ledger import Ledger
from admission_server.resources import SECONDS, Family, Histogram, Resource
from admission_server.signals import SignalBoard

LAG_WINDOW = 60.0
OTHER = "other"
"""The label of all resources that no policy has named: holders choose those names, and may choose many."""


class LoopLag:
    """How late the event loop runs, as the ticker sees it. `current` decays, so that one late tick is not a state.

    The worst is kept in two windows, this and the last: what it shows does not depend on who else scrapes.
    """

    def __init__(self) -> None:
        self.current = 0.0
        self.policy_applied_at: float | None = None
        self._worst = self._last_worst = 0.0
        self._until = -math.inf

    def note(self, late: float, now: float) -> None:
        """Takes note of how late a tick came that was handled at `now`."""
        self.current = max(late, self.current / 2)
        if now >= self._until:
            self._last_worst = self._worst if now < self._until + LAG_WINDOW else 0.0
            self._worst, self._until = 0.0, now + LAG_WINDOW
        self._worst = max(self._worst, late)

    @property
    def worst(self) -> float:
        """The worst of the last minute, or of up to two."""
        return max(self._worst, self._last_worst)


class LedgerMetrics(Collector):
    """The ledger's numbers as Prometheus wants them."""

    def __init__(self, ledger: Ledger, signals: SignalBoard, lag: LoopLag) -> None:
        self._ledger = ledger
        self._signals = signals
        self._lag = lag

    @classmethod
    def register(cls, registry: CollectorRegistry, ledger: Ledger, signals: SignalBoard, lag: LoopLag) -> None:
        """Makes a registry show them."""
        registry.register(cls(ledger, signals, lag))

    def collect(self) -> Iterator[Metric]:
        """Yields all metrics as of now."""
        yield from self._decisions()
        yield from self._seats()
        yield from self._sessions()
        yield from self._server()

    def _families(self) -> list[Family]:
        return [self._ledger.catalogue.families[name] for name in sorted(self._ledger.catalogue.families)]

    def _label(self, resource: Resource) -> str:
        name = resource.family.name
        return name if name in self._ledger.catalogue.families else OTHER

    def _decisions(self) -> Iterator[Metric]:
        decisions = CounterMetricFamily(
            "sluicegate_admission_decisions",
            "Seats granted, and acquires denied, by resource family, outcome and reason.",
            labels=("resource", "outcome", "reason"),
        )
        waits = HistogramMetricFamily(
            "sluicegate_admission_wait_seconds", "Time from an acquire to its answer.", labels=("resource",)
        )
        holds = HistogramMetricFamily(
            "sluicegate_admission_hold_seconds", "Time that seats were held.", labels=("resource",)
        )
        for family in self._families():
            decisions.add_metric((family.name, "granted", ""), family.granted)
            for reason, count in family.denied.copy().items():
                decisions.add_metric((family.name, "denied", reason.value), count)
            waits.add_metric((family.name,), *_buckets(family.waits))
            holds.add_metric((family.name,), *_buckets(family.holds))
        for reason, count in self._ledger.denied.copy().items():
            decisions.add_metric((OTHER, "denied", reason.value), count)
        yield from (decisions, waits, holds)

    def _seats(self) -> Iterator[Metric]:
        held: dict[str, int] = {}
        limit: dict[str, int] = {}
        overdraft: dict[str, int] = {}
        waiting: dict[str, int] = {}
        for resource in list(self._ledger.catalogue.resources.values()):
            name = self._label(resource)
            held[name] = held.get(name, 0) + len(resource.leases)
            limit[name] = limit.get(name, 0) + resource.settings.limit
            overdraft[name] = overdraft.get(name, 0) + resource.overdraft
            waiting[name] = waiting.get(name, 0) + resource.waiting
        for name, text, values in (
            ("seats_held", "Seats that are taken.", held),
            ("seats_limit", "Seats that there are; 0: unlimited.", limit),
            ("seats_overdraft", "Seats above the limit.", overdraft),
            ("waiting", "Acquires that wait for one resource.", waiting),
        ):
            gauge = GaugeMetricFamily(f"sluicegate_admission_{name}", text, labels=("resource",))
            for family, value in sorted(values.items()):
                gauge.add_metric((family,), value)
            yield gauge
        yield GaugeMetricFamily("sluicegate_admission_waiters", "Acquires without an answer.", self._ledger.waiting)

    def _sessions(self) -> Iterator[Metric]:
        ledger = self._ledger
        yield GaugeMetricFamily("sluicegate_admission_sessions", "Sessions that are open.", len(ledger.sessions))
        yield GaugeMetricFamily(
            "sluicegate_admission_recovering_sessions", "Sessions missing since the restart.", len(ledger.recovering)
        )
        ended = CounterMetricFamily(
            "sluicegate_admission_sessions_ended", "Sessions by how they ended.", labels=("how",)
        )
        for reason, count in ledger.ended.copy().items():
            ended.add_metric((reason.value,), count)
        yield ended
        reclaimed = CounterMetricFamily(
            "sluicegate_admission_seats_reclaimed", "Seats taken back from their holder, by cause.", labels=("cause",)
        )
        for reason, count in ledger.reclaimed.copy().items():
            reclaimed.add_metric((reason.value,), count)
        yield reclaimed
        yield CounterMetricFamily(
            "sluicegate_admission_seats_adopted", "Seats claimed by their holder.", ledger.adopted
        )
        yield CounterMetricFamily(
            "sluicegate_admission_digest_mismatches", "Heartbeats whose books differed.", ledger.mismatches
        )

    def _server(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "sluicegate_admission_loop_lag_seconds", "Worst lateness of the last one to two minutes.", self._lag.worst
        )
        applied_at = self._lag.policy_applied_at
        age = self._ledger.now() - applied_at if applied_at is not None else float("nan")
        yield GaugeMetricFamily("sluicegate_admission_policy_age_seconds", "Time since a policy was applied.", age)
        yield GaugeMetricFamily(
            "sluicegate_admission_policy_version", "Version of the policy in force.", self._ledger.catalogue.version
        )
        yield GaugeMetricFamily(
            "sluicegate_admission_signals_pending", "Accounts with an unacknowledged signal.", len(self._signals)
        )


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    counts = list(histogram.counts)
    running = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, SECONDS), "+Inf"), counts, strict=True):
        running += count
        buckets.append((bound, running))
    return buckets, histogram.total
