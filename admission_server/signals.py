"""What edges saw of accounts, on its way to the control API. Pure.

A signal is state, not a message: one entry an account in an outbox, which says when it is sent. A change of status is
urgent.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from admission_server.accounts import Credits, Outcome, RateLimitWindow, Report, TokenUsage, Verdict
from admission_server.outbox import Entry, Outbox

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


class _Entry(Entry):
    __slots__ = ("credits", "event", "event_sequence", "failed", "succeeded", "told_at", "usage", "windows")

    def __init__(self, account_id: str, now: float) -> None:
        super().__init__(account_id, now)
        self.event_sequence = 0
        self.event: StatusEvent | None = None
        self.windows: dict[float, RateLimitWindow] = {}
        self.credits: Credits | None = None
        self.told_at = now
        self.succeeded = self.failed = 0
        self.usage = TokenUsage()


class SignalBoard:
    """One entry an account."""

    def __init__(self) -> None:
        self._box: Outbox[_Entry] = Outbox()

    def __len__(self) -> int:
        """How many accounts have something that is not acknowledged."""
        return len(self._box)

    def record(self, report: Report, verdict: Verdict, now: float) -> None:
        """Merges a report into its account's entry."""
        entry = self._box.entries.get(report.account_id) or _Entry(report.account_id, now)
        self._box.change(entry)
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
        return [_signal(entry, now) for entry in self._box.take(now)]

    def start_over(self) -> None:
        """A new controller listens: everything that is not acknowledged is to be sent at once."""
        self._box.start_over()

    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Takes note that the controller has stored signals."""
        self._box.acknowledge(sequences)

    def settled(self) -> frozenset[str]:
        """Returns the accounts of which the controller has stored the last status event, so that its word counts."""
        return frozenset(e.entry_id for e in self._box.entries.values() if e.event_sequence <= e.acknowledged)

    def keep_only(self, account_ids: Iterable[str]) -> None:
        """Forgets accounts that are gone."""
        self._box.keep_only(account_ids)

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
        account_id=entry.entry_id,
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
