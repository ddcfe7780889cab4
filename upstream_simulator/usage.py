"""How much of its quota an account has used: the two windows, as `/wham/usage`, headers and events tell them. Pure.

Windows are told by their length: five hours and a week. Every turn uses up a little, so that numbers move.
"""

from dataclasses import dataclass
from typing import Any

_TOKENS_PER_PERCENT = 200_000


@dataclass(slots=True)
class Window:
    """One quota window. When its time is over it begins anew."""

    length: int
    used_percent: float
    resets_at: float

    def at(self, now: float) -> "Window":
        """Returns this window, begun anew when its time was over."""
        if now >= self.resets_at:
            self.resets_at = now + self.length
            self.used_percent = 0.0
        return self


@dataclass(slots=True)
class Usage:
    """An account's windows and credits."""

    primary: Window
    secondary: Window
    plan: str
    credit_balance: str = "0"

    @classmethod
    def of_new_account(cls, *, plan: str, now: float) -> "Usage":
        """Returns the usage of an account that is in the middle of its windows."""
        return cls(
            primary=Window(length=18_000, used_percent=4.0, resets_at=now + 12_000),
            secondary=Window(length=604_800, used_percent=11.0, resets_at=now + 300_000),
            plan=plan,
        )

    def count(self, tokens: int, now: float) -> None:
        """Adds a turn's tokens. By turns alone a window never fills up; `set` does that."""
        for window, share in ((self.primary, 1.0), (self.secondary, 0.1)):
            current = window.at(now)
            if current.used_percent < 95:
                current.used_percent += share * tokens / _TOKENS_PER_PERCENT

    def as_headers(self, now: float) -> dict[str, str]:
        """Returns the rate-limit headers of an answer."""
        headers: dict[str, str] = {"x-codex-plan-type": self.plan}
        for name, window in (("primary", self.primary.at(now)), ("secondary", self.secondary.at(now))):
            headers[f"x-codex-{name}-used-percent"] = f"{window.used_percent:.2f}"
            headers[f"x-codex-{name}-window-minutes"] = str(window.length // 60)
            headers[f"x-codex-{name}-reset-at"] = str(int(window.resets_at))
        headers["x-codex-credits-has-credits"] = "false"
        headers["x-codex-credits-unlimited"] = "false"
        headers["x-codex-credits-balance"] = self.credit_balance
        return headers

    def as_event(self, now: float) -> dict[str, Any]:
        """Returns the telemetry event `codex.rate_limits`."""
        limits = {
            name: {
                "used_percent": round(window.used_percent, 2),
                "window_minutes": window.length // 60,
                "reset_at": int(window.resets_at),
            }
            for name, window in (("primary", self.primary.at(now)), ("secondary", self.secondary.at(now)))
        }
        return {
            "type": "codex.rate_limits",
            "plan_type": self.plan,
            "rate_limits": limits,
            "credits": {"has_credits": False, "unlimited": False, "balance": self.credit_balance},
        }

    def as_payload(self, now: float) -> dict[str, Any]:
        """Returns the answer of `/wham/usage`."""
        windows = {
            name: {
                "used_percent": round(window.used_percent, 2),
                "limit_window_seconds": window.length,
                "reset_after_seconds": max(0, int(window.resets_at - now)),
                "reset_at": int(window.resets_at),
            }
            for name, window in (("primary_window", self.primary.at(now)), ("secondary_window", self.secondary.at(now)))
        }
        reached = any(window["used_percent"] >= 100 for window in windows.values())
        return {
            "plan_type": self.plan,
            "rate_limit": {"allowed": not reached, "limit_reached": reached, **windows},
            "credits": {"has_credits": False, "unlimited": False, "balance": self.credit_balance},
            "rate_limit_reset_credits": {"available_count": 0},
            "additional_rate_limits": [],
        }
