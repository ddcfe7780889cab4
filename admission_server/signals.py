"""What edges saw of accounts, on its way to the control API. Pure.

A signal is state, not a message: one entry an account, whose newest version contains everything that matters of the
older ones. So entries can be sent again, and nothing piles up while nobody listens. An account's entry is sent at most
once a second, a change of status at once; it is sent again until its sequence is acknowledged.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from admission_server.accounts import Credits, Outcome, RateLimitWindow, Report, TokenUsage, Verdict

EVERY = 1.0
AGAIN_AFTER = 5.0
MOST_WINDOWS = 8
_FAILURES = frozenset(
    {
        Outcome.TRANSIENT_ERROR,
        Outcome.RATE_LIMITED,
        Outcome.QUOTA_EXCEEDED,
        Outcome.AUTH_REJECTED,
        Outcome.ACCOUNT_DISABLED,
        Outcome.MISCONFIGURED,
    }
)
_GRAVITY = {
    Outcome.ACCOUNT_DISABLED: 3,
    Outcome.AUTH_REJECTED: 2,
    Outcome.QUOTA_EXCEEDED: 1,
    Outcome.RATE_LIMITED: 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusEvent:
    """Something that may change an account's status. Times are the ledger's."""

    report: Report
    happened_at: float
    refresh_wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """The latest of one account, as of now. Ages are seconds."""

    sequence: int
    account_id: str
    event: StatusEvent | None
    event_age: float
    resets_after: float | None
    windows: tuple[RateLimitWindow, ...]
    credits: Credits | None
    windows_age: float
    succeeded: int
    failed: int
    usage: TokenUsage


class _Entry:
    __slots__ = (
        "account_id",
        "acknowledged",
        "credits",
        "event",
        "event_sequence",
        "failed",
        "sent",
        "sent_at",
        "sequence",
        "succeeded",
        "told_at",
        "urgent",
        "usage",
        "windows",
    )

    def __init__(self, account_id: str, now: float) -> None:
        self.account_id = account_id
        self.sequence = self.sent = self.acknowledged = self.event_sequence = 0
        self.sent_at = now - EVERY
        self.urgent = False
        self.event: StatusEvent | None = None
        self.windows: dict[float, RateLimitWindow] = {}
        self.credits: Credits | None = None
        self.told_at = now
        self.succeeded = self.failed = 0
        self.usage = TokenUsage()


class SignalBoard:
    """One entry an account."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._pending: dict[str, _Entry] = {}
        self._last_sequence = 0

    def __len__(self) -> int:
        """How many accounts have something that is not acknowledged."""
        return len(self._pending)

    def record(self, report: Report, verdict: Verdict, now: float) -> None:
        """Merges a report into its account's entry."""
        entry = self._entries.get(report.account_id)
        if entry is None:
            entry = self._entries[report.account_id] = _Entry(report.account_id, now)
        self._last_sequence += 1
        entry.sequence = self._last_sequence
        self._pending[report.account_id] = entry
        if report.outcome is Outcome.SUCCEEDED:
            entry.succeeded += 1
        elif report.outcome in _FAILURES:
            entry.failed += 1
        if report.usage is not None:
            entry.usage += report.usage
        if report.windows or report.credits is not None:
            self._merge_windows(entry, report, now)
        if verdict.concerns_status:
            self._merge_event(entry, StatusEvent(report=report, happened_at=now, refresh_wanted=verdict.refresh_wanted))

    def take(self, now: float) -> list[Signal]:
        """Returns what is to be sent now, and takes it as sent."""
        signals = []
        for entry in self._pending.values():
            news = entry.sequence > entry.sent
            waited = now - entry.sent_at
            if (news and (entry.urgent or waited >= EVERY)) or waited >= AGAIN_AFTER:
                entry.sent, entry.sent_at, entry.urgent = entry.sequence, now, False
                signals.append(_signal(entry, now))
        return signals

    def start_over(self) -> None:
        """A new controller listens: everything that is not acknowledged is to be sent at once."""
        for entry in self._pending.values():
            entry.sent, entry.urgent = entry.acknowledged, True

    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Takes note that the controller has stored signals."""
        stored = set(sequences)
        for entry in [e for e in self._pending.values() if e.sent in stored]:
            entry.acknowledged = entry.sent
            if entry.acknowledged == entry.sequence:
                del self._pending[entry.account_id]

    def settled(self) -> frozenset[str]:
        """Returns the accounts of which the controller has stored the last status event, so that its word counts."""
        return frozenset(e.account_id for e in self._entries.values() if e.event_sequence <= e.acknowledged)

    def keep_only(self, account_ids: Iterable[str]) -> None:
        """Forgets accounts that are gone."""
        known = set(account_ids)
        for account_id in [i for i in self._entries if i not in known]:
            del self._entries[account_id]
            self._pending.pop(account_id, None)

    def _merge_windows(self, entry: _Entry, report: Report, now: float) -> None:
        # Resets are told relative to their own time. What is kept of an older one is moved to this time.
        aged = now - entry.told_at
        for length, window in entry.windows.items():
            if window.resets_after is not None:
                entry.windows[length] = RateLimitWindow(
                    length=length, used_percent=window.used_percent, resets_after=max(0.0, window.resets_after - aged)
                )
        for window in report.windows:
            if window.length in entry.windows or len(entry.windows) < MOST_WINDOWS:
                entry.windows[window.length] = window
        if report.credits is not None:
            entry.credits = report.credits
        entry.told_at = now

    def _merge_event(self, entry: _Entry, event: StatusEvent) -> None:
        old = entry.event
        untold = old is not None and entry.event_sequence > entry.acknowledged
        if untold and old is not None and _gravity(old) > _gravity(event):
            # A refresh that was asked for must not be forgotten because a 429 came after it.
            return
        entry.event = event
        entry.event_sequence = entry.sequence
        entry.urgent = True


def _gravity(event: StatusEvent) -> int:
    return _GRAVITY.get(event.report.outcome, 0)


def _signal(entry: _Entry, now: float) -> Signal:
    event = entry.event
    resets = event.report.resets_after if event is not None else None
    return Signal(
        sequence=entry.sequence,
        account_id=entry.account_id,
        event=event,
        event_age=now - event.happened_at if event is not None else 0.0,
        resets_after=max(0.0, resets - (now - event.happened_at)) if event is not None and resets is not None else None,
        windows=tuple(entry.windows.values()),
        credits=entry.credits,
        windows_age=now - entry.told_at,
        succeeded=entry.succeeded,
        failed=entry.failed,
        usage=entry.usage,
    )
