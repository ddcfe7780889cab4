"""What is left of an account's quota, as a weight for selection: credits of the longest window. Pure."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from control_api.usage.windows import FIVE_HOURS, WEEK, UsageWindow

_FULL: Mapping[str, float] = MappingProxyType(
    {"free": 1_134.0, "prolite": 37_800.0, "pro": 50_400.0, "enterprise": 50_400.0}
)
_USUAL = 7_560.0
"""Credits of a full week: plus, business, team, edu, and everything unknown."""


def full_capacity(plan: str) -> float:
    """Returns the credits of a full week on a plan."""
    return _FULL.get(plan.lower(), _USUAL)


def remaining(plan: str, windows: Iterable[UsageWindow], *, now: float) -> float:
    """Returns the credits that are left, to three digits, so that small movements are no news."""
    by_length = {window.length: window for window in windows}
    full = full_capacity(plan)
    longest = max((length for length in by_length if length >= WEEK), default=None)
    left = full * _left(by_length[longest], now) if longest is not None else full
    short = by_length.get(FIVE_HOURS)
    # With its short window used up an account can do nothing now, however much of the week is left.
    if short is not None and _left(short, now) <= 0:
        left = 0.0
    return float(f"{left:.3g}")


def _left(window: UsageWindow, now: float) -> float:
    if window.resets_at is not None and window.resets_at <= now:
        return 1.0
    return (100.0 - window.used_percent) / 100.0
