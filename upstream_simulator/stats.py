"""What the simulator saw, for tests to ask: counts, streams at once, exchanges of refresh tokens, the latest turns.

Everything is bounded. Tokens appear only as the first half of their SHA-256.
"""

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_MOST_PATHS = 200
_MOST_TURNS = 50
_MOST_TOKENS = 10_000
_LARGEST_BODY = 256 * 1024
_SECRET_HEADERS = frozenset({"authorization", "cookie", "x-sluicegate-key"})


def fingerprint(secret: str) -> str:
    """Returns what stands for a secret in the statistics."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


@dataclass(slots=True)
class Gauge:
    """How many there are now, were at most, and were in all; and the time they took together."""

    now: int = 0
    most: int = 0
    total: int = 0
    _seconds: float = 0.0
    _changed_at: float = 0.0

    def change(self, by: int, at: float) -> None:
        """Counts one that begins (1) or ends (-1)."""
        self._seconds += self.now * (at - self._changed_at)
        self._changed_at = at
        self.now += by
        self.most = max(self.most, self.now)
        self.total += by > 0

    def forget(self, at: float) -> None:
        """Begins anew with those that run."""
        self.most = self.total = self.now
        self._seconds, self._changed_at = 0.0, at

    def seconds(self, at: float) -> float:
        """Returns the seconds that all of them took until now, together."""
        return self._seconds + self.now * (at - self._changed_at)

    def as_dict(self, at: float) -> dict[str, float]:
        """Returns the gauge for people and tests."""
        return {"now": self.now, "most": self.most, "total": self.total, "seconds": round(self.seconds(at), 6)}


@dataclass(slots=True)
class Exchanges:
    """What became of the exchanges of one refresh token."""

    attempts: int = 0
    granted: int = 0


@dataclass(slots=True)
class Stats:
    """The counters. `monotonic` measures how long streams ran."""

    monotonic: Callable[[], float]
    _requests: dict[str, dict[str, int]] = field(default_factory=dict)
    _streams: dict[str, Gauge] = field(default_factory=lambda: defaultdict(Gauge))
    _sockets: dict[str, Gauge] = field(default_factory=lambda: defaultdict(Gauge))
    _exchanges: dict[str, Exchanges] = field(default_factory=dict)
    _turns: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_MOST_TURNS))
    _answers: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_MOST_TURNS))
    _foreign_turn_states: int = 0

    def request(self, path: str, status: str) -> None:
        """Counts one answered request; `status` is "cut" for one whose client never saw its end."""
        if path not in self._requests and len(self._requests) >= _MOST_PATHS:
            path = "(others)"
        by_status = self._requests.setdefault(path, {})
        by_status[status] = by_status.get(status, 0) + 1

    @contextmanager
    def stream(self, account: str) -> Iterator[None]:
        """Counts a turn of an account while the block runs."""
        with self._counted(self._streams[account]):
            yield

    @contextmanager
    def socket(self, account: str) -> Iterator[None]:
        """Counts an open WebSocket of an account while the block runs."""
        with self._counted(self._sockets[account]):
            yield

    def turn(
        self, *, account: str, transport: str, path: str, headers: Mapping[str, str], body: Any, size: int
    ) -> None:
        """Remembers a turn as it came in; the latest ones are kept."""
        self._turns.append(
            {
                "account": account,
                "transport": transport,
                "path": path,
                "headers": {name.lower(): _shown(name, value) for name, value in headers.items()},
                "body": body if size <= _LARGEST_BODY else None,
                "size": size,
            }
        )

    def answer(self, response_id: str, sent: bytes) -> None:
        """Remembers what a stream consisted of, so that others can tell whether it reached them unchanged."""
        self._answers.append(
            {"response_id": response_id, "bytes": len(sent), "sha256": hashlib.sha256(sent).hexdigest()}
        )

    def exchange(self, refresh_token: str, *, granted: bool) -> None:
        """Counts one attempt to exchange a refresh token."""
        key = fingerprint(refresh_token)
        if key not in self._exchanges and len(self._exchanges) >= _MOST_TOKENS:
            self._exchanges.pop(next(iter(self._exchanges)))
        exchanges = self._exchanges.setdefault(key, Exchanges())
        exchanges.attempts += 1
        exchanges.granted += granted

    def foreign_turn_state(self) -> None:
        """Counts a turn state that was sent to an account which did not make it."""
        self._foreign_turn_states += 1

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as JSON."""
        now = self.monotonic()
        return {
            "requests": self._requests,
            "streams": {account: gauge.as_dict(now) for account, gauge in self._streams.items()},
            "sockets": {account: gauge.as_dict(now) for account, gauge in self._sockets.items()},
            "refresh_exchanges": {
                key: {"attempts": seen.attempts, "granted": seen.granted} for key, seen in self._exchanges.items()
            },
            "foreign_turn_states": self._foreign_turn_states,
            "turns": list(self._turns),
            "answers": list(self._answers),
        }

    def forget(self) -> None:
        """Begins anew. What runs at this moment stays counted."""
        now = self.monotonic()
        self._requests.clear()
        self._exchanges.clear()
        self._turns.clear()
        self._answers.clear()
        self._foreign_turn_states = 0
        for gauges in (self._streams, self._sockets):
            for account, gauge in list(gauges.items()):
                gauge.forget(now)
                if not gauge.now:
                    del gauges[account]

    @contextmanager
    def _counted(self, gauge: Gauge) -> Iterator[None]:
        gauge.change(1, self.monotonic())
        try:
            yield
        finally:
            gauge.change(-1, self.monotonic())


def _shown(name: str, value: str) -> str:
    if name.lower() not in _SECRET_HEADERS:
        return value
    scheme, _, secret = value.rpartition(" ")
    return f"{scheme} sha256:{fingerprint(secret)}".strip()
