"""Entries whose newest state is sent until it is acknowledged. Pure.

An entry is state, not a message: its newest version contains everything that matters of the older ones. So it can be
sent again, and nothing piles up while nobody listens. An entry is sent at most once a second, or at once where it is
urgent; and again until its sequence is acknowledged.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

EVERY = 1.0
AGAIN_AFTER = 5.0


class Entry:
    """What an outbox knows of one entry. `sequence` grows with every change of it."""

    __slots__ = ("acknowledged", "entry_id", "sent", "sent_at", "sequence", "urgent")

    def __init__(self, entry_id: str, now: float) -> None:
        self.entry_id = entry_id
        self.sequence = self.sent = self.acknowledged = 0
        self.sent_at = now - EVERY
        self.urgent = False


E = TypeVar("E", bound=Entry)


class Outbox(Generic[E]):
    """Entries by id, and which of them are not acknowledged."""

    def __init__(self) -> None:
        self.entries: dict[str, E] = {}
        self._pending: dict[str, E] = {}
        self._last_sequence = 0

    def __len__(self) -> int:
        """How many entries have something that is not acknowledged."""
        return len(self._pending)

    def change(self, entry: E) -> None:
        """Notes that an entry, which may be new, has changed."""
        self._last_sequence += 1
        entry.sequence = self._last_sequence
        self.entries[entry.entry_id] = self._pending[entry.entry_id] = entry

    def take(self, now: float) -> list[E]:
        """Returns what is to be sent now, and takes it as sent."""
        due = []
        for entry in self._pending.values():
            news = entry.sequence > entry.sent
            waited = now - entry.sent_at
            if (news and (entry.urgent or waited >= EVERY)) or waited >= AGAIN_AFTER:
                entry.sent, entry.sent_at, entry.urgent = entry.sequence, now, False
                due.append(entry)
        return due

    def start_over(self) -> None:
        """Somebody new listens: everything that is not acknowledged is to be sent at once."""
        for entry in self._pending.values():
            entry.sent, entry.urgent = entry.acknowledged, True

    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Takes note that entries were stored, as they were sent."""
        stored = set(sequences)
        for entry in [e for e in self._pending.values() if e.sent in stored]:
            entry.acknowledged = entry.sent
            if entry.acknowledged == entry.sequence:
                del self._pending[entry.entry_id]

    def keep_only(self, entry_ids: Iterable[str]) -> None:
        """Forgets all other entries."""
        known = set(entry_ids)
        for entry_id in [i for i in self.entries if i not in known]:
            del self.entries[entry_id]
            self._pending.pop(entry_id, None)
