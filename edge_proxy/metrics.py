"""Counters of one worker. With several workers they live in files of one folder and are summed where they are shown."""

from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from edge_proxy.access import AccessRecord

_WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_DURATIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


class EdgeMetrics:
    """What the edge counts. Everything is named `sluicegate_edge_…`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "sluicegate_edge_requests",
            "Requests and socket turns that ended.",
            ("transport", "route", "status", "outcome"),
            registry=registry,
        )
        self.refusals = Counter(
            "sluicegate_edge_refusals",
            "Requests and turns that were refused, by who refused and why.",
            ("lane", "reason"),
            registry=registry,
        )
        self.retries = Counter(
            "sluicegate_edge_retries", "Tries on another account or credential.", ("why",), registry=registry
        )
        self.keepalives = Counter(
            "sluicegate_edge_keepalives", "Keepalives sent while the upstream was silent.", registry=registry
        )
        self.repaired_streams = Counter(
            "sluicegate_edge_repaired_streams", "Streams that were given the end they lacked.", registry=registry
        )
        self.bytes_out = Counter("sluicegate_edge_bytes_out", "Bytes sent to clients.", registry=registry)
        self.tokens = Counter("sluicegate_edge_tokens", "Tokens of finished responses.", ("kind",), registry=registry)
        self.admission_wait = Histogram(
            "sluicegate_edge_admission_wait_seconds",
            "Time spent waiting for leases.",
            buckets=_WAITS,
            registry=registry,
        )
        self.first_byte = Histogram(
            "sluicegate_edge_first_byte_seconds",
            "Time from a request's head to the first byte of its answer.",
            buckets=_DURATIONS,
            registry=registry,
        )
        self.duration = Histogram(
            "sluicegate_edge_duration_seconds",
            "Time from a request's head to the end of its answer.",
            ("transport",),
            buckets=_DURATIONS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "sluicegate_edge_in_flight",
            "Requests being served and sockets being open.",
            ("transport",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.body_bytes = Gauge(
            "sluicegate_edge_body_bytes",
            "Bytes of request bodies in memory.",
            registry=registry,
            multiprocess_mode="livesum",
        )

        # `labels` takes its time: what was found once is kept. All of these have few values.
        self.refusals_of = cache(self.refusals.labels)
        self._requests_of = cache(self.requests.labels)
        self._duration_of = cache(self.duration.labels)
        self._tokens_of = cache(self.tokens.labels)
        self.http_in_flight = self.in_flight.labels("http")
        self.sockets_in_flight = self.in_flight.labels("websocket")

    def finished(self, record: "AccessRecord", total: float) -> None:
        """Counts a request that has ended."""
        self._requests_of(record.transport, record.route, str(record.status), record.outcome).inc()
        self._duration_of(record.transport).observe(total)
        self.admission_wait.observe(record.admission_wait)
        self.bytes_out.inc(record.bytes_out)
        if record.first_byte is not None:
            self.first_byte.observe(record.first_byte)
        for kind, count in record.tokens.items():
            self._tokens_of(kind).inc(count)
