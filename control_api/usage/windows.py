"""Reads `/wham/usage`. Windows are known by their length, never by their position. Pure.

Everything in the answer is optional, and numbers may come as strings: what cannot be read is left out.
"""

from dataclasses import dataclass
from typing import Any

from admission_client.lease import Credits

FIVE_HOURS = 18_000
WEEK = 604_800
MONTH = 43_200 * 60
_BY_POSITION = {"primary_window": FIVE_HOURS, "secondary_window": WEEK, "monthly_window": MONTH}
_LONGEST = 366 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageWindow:
    """How much of one window is used."""

    length: int
    used_percent: float
    resets_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """What the upstream tells about an account."""

    plan: str = ""
    workspace_id: str = ""
    windows: tuple[UsageWindow, ...] = ()
    credits: Credits | None = None


def read_usage(payload: Any, *, now: float) -> UsageReport | None:
    """Returns the report in an answer; None when it is none."""
    if not isinstance(payload, dict):
        return None
    limits = payload.get("rate_limit")
    windows: dict[int, UsageWindow] = {}
    if isinstance(limits, dict):
        for position, usual in _BY_POSITION.items():
            window = _window(limits.get(position), usual, now)
            if window is not None:
                windows.setdefault(window.length, window)
    return UsageReport(
        plan=_text(payload.get("plan_type")),
        workspace_id=_text(payload.get("workspace_id")),
        windows=tuple(sorted(windows.values(), key=lambda window: window.length)),
        credits=_credits(payload.get("credits")),
    )


def _window(found: Any, usual_length: int, now: float) -> UsageWindow | None:
    if not isinstance(found, dict):
        return None
    used = _number(found.get("used_percent"))
    if used is None:
        return None
    length = _number(found.get("limit_window_seconds"))
    resets_at = _number(found.get("reset_at"))
    if resets_at is None and (after := _number(found.get("reset_after_seconds"))) is not None:
        resets_at = now + after
    return UsageWindow(
        length=round(length) if length and 1 <= length <= _LONGEST else usual_length,
        used_percent=min(100.0, max(0.0, used)),
        resets_at=resets_at if resets_at is not None and 0 < resets_at <= now + _LONGEST else None,
    )


def _credits(found: Any) -> Credits | None:
    if not isinstance(found, dict):
        return None
    return Credits(
        has_credits=found.get("has_credits") is True,
        unlimited=found.get("unlimited") is True,
        balance=_text(found.get("balance")),
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e15 else None


def _text(value: Any) -> str:
    return value[:256] if isinstance(value, str) else ""
