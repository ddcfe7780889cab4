"""Sums of what cumulative counts tell. Pure.

Counts start at 0 with each epoch of the admission server, and may be told again. A row keeps the counts that it was
told last, as `seen_<name>`, and of which epoch, beside its totals: stored in one transaction, nothing counts twice.
"""

from collections.abc import Mapping
from typing import Protocol

MOST = 2**63 - 1
"""What a database holds. Nobody ever uses so much, but a count must not stop the others."""


class Counted(Protocol):
    """A row with totals."""

    epoch: int


def add_told(row: Counted, told: Mapping[str, int], *, epoch: int, totals: Mapping[str, str]) -> None:
    """Adds what is new in these counts to a row's totals; `totals` names the total of each count."""
    for name, count in told.items():
        value = min(count, MOST)
        before = getattr(row, f"seen_{name}") if row.epoch == epoch else 0
        total = totals[name]
        setattr(row, total, min(MOST, getattr(row, total) + max(0, value - before)))
        setattr(row, f"seen_{name}", value)
    row.epoch = epoch
