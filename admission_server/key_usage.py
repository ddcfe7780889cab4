"""What each API key has used, on its way to the control API: counts since the start of the epoch. Pure.

Counts are state, like signals of accounts: they may be told again and again, and the controller takes differences. So a
key is not forgotten in an epoch, even when it is revoked: it may come back, and its counts would begin anew. Only keys
that the policy has named are counted, so there are as many as an operator has made.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from admission_server.accounts import Outcome, Report, TokenUsage
from admission_server.outbox import Entry, Outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCounts:
    """What one key has used in this epoch."""

    sequence: int
    key_id: str
    succeeded: int
    failed: int
    usage: TokenUsage


class _Entry(Entry):
    __slots__ = ("failed", "succeeded", "usage")

    def __init__(self, entry_id: str, now: float) -> None:
        super().__init__(entry_id, now)
        self.succeeded = self.failed = 0
        self.usage = TokenUsage()


class KeyUsageBoard:
    """One entry a key."""

    def __init__(self) -> None:
        self._box: Outbox[_Entry] = Outbox()

    def __len__(self) -> int:
        """How many keys have counts that are not acknowledged."""
        return len(self._box)

    def record(self, key_id: str, report: Report, now: float) -> None:
        """Counts what a report says of a use with this key."""
        if report.usage is None and report.outcome in _UNCOUNTED:
            return
        entry = self._box.entries.get(key_id) or _Entry(key_id, now)
        self._box.change(entry)
        if report.outcome is Outcome.SUCCEEDED:
            entry.succeeded += 1
        elif report.outcome not in _UNCOUNTED:
            entry.failed += 1
        if report.usage is not None:
            entry.usage += report.usage

    def take(self, now: float) -> list[KeyCounts]:
        """Returns what is to be sent now, and takes it as sent."""
        return [
            KeyCounts(
                sequence=entry.sequence,
                key_id=entry.entry_id,
                succeeded=entry.succeeded,
                failed=entry.failed,
                usage=entry.usage,
            )
            for entry in self._box.take(now)
        ]

    def start_over(self) -> None:
        """A new controller listens: everything that is not acknowledged is to be sent at once."""
        self._box.start_over()

    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Takes note that the controller has stored counts."""
        self._box.acknowledge(sequences)


_UNCOUNTED = frozenset({Outcome.UNSPECIFIED, Outcome.NEUTRAL})
"""Nobody learns anything of such a use: the client left, the request was at fault, it was refused here."""
