"""Sums of what cumulative counts tell. Pure.

Counts start at 0 with each epoch of the admission server, and may be told again. A row keeps the counts that it was
told last, as `seen_<name>`, and of which epoch, beside its totals: stored in one transaction, nothing counts twice.
"""

from collections.abc import Iterable
from typing import Protocol

from admission_client.policy import AccountSignal, KeySignal

MOST = 2**63 - 1
"""What a database holds. Nobody ever uses so much, but a count must not stop the others."""
TOTALS = {
    "succeeded": "succeeded",
    "failed": "failed",
    "input": "input_tokens",
    "cached": "cached_input_tokens",
    "output": "output_tokens",
    "reasoning": "reasoning_tokens",
}
"""The total of each count, by the count's name in a row."""


class Counted(Protocol):
    """A row with totals."""

    epoch: int


def add_told(row: Counted, signal: AccountSignal | KeySignal, *, counts: Iterable[str] = TOTALS) -> None:
    """Adds what is new in a signal to a row's totals; `counts` are those that the row keeps."""
    usage = signal.usage
    told = {
        "succeeded": signal.succeeded,
        "failed": signal.failed,
        "input": usage.input_tokens,
        "cached": usage.cached_input_tokens,
        "output": usage.output_tokens,
        "reasoning": usage.reasoning_tokens,
    }
    for name in counts:
        value = min(told[name], MOST)
        before = getattr(row, f"seen_{name}") if row.epoch == signal.epoch else 0
        total = TOTALS[name]
        setattr(row, total, min(MOST, getattr(row, total) + max(0, value - before)))
        setattr(row, f"seen_{name}", value)
    row.epoch = signal.epoch
