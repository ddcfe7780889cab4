"""Seats counted in this process, for when the admission server cannot count them."""

from collections.abc import Callable

from admission_client.lease import DenialReason

UNDECIDED = frozenset(
    {DenialReason.POLICY_UNAVAILABLE, DenialReason.RECOVERING, DenialReason.DRAINING, DenialReason.SESSION_STALE}
)
"""Denials that say nothing about room: the server cannot count yet, or no longer."""


class LocalSeats:
    """Counts seats against a limit that is asked each time; 0 means unlimited."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._held = 0

    @property
    def held(self) -> int:
        """Seats that are taken now."""
        return self._held

    def take(self) -> bool:
        """Takes a seat and returns True, if there is one."""
        limit = self._limit()
        if limit and self._held >= limit:
            return False
        self._held += 1
        return True

    def give_back(self) -> None:
        """Gives a seat back."""
        self._held -= 1
