"""What an upstream answer means: for the account, and for the client. Pure.

`judge` is the one place that knows the upstream's statuses and codes. An action says what may be done about it while
the client has seen nothing; whether there is another try is `attempts`' business. Whatever an upstream says ends up in
bounds here: an implausible number is none, and text can be encoded.
"""

import enum
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from admission_client import bounds
from admission_client.lease import Credits, Outcome, RateLimitWindow, TokenUsage
from edge_proxy.errors import UpstreamTrouble
from edge_proxy.sse import json_object

RATE_CODES = frozenset({"rate_limit_exceeded", "usage_limit_reached"})
QUOTA_CODES = frozenset({"insufficient_quota", "usage_not_included", "quota_exceeded"})
OVERLOAD_CODES = frozenset({"overloaded_error", "server_is_overloaded", "slow_down", "server_error"})
AUTH_CODES = frozenset(
    {
        "invalid_api_key",
        "invalid_authentication",
        "token_invalidated",
        "token_expired",
        "token_revoked",
        "app_session_terminated",
        "account_session_expired",
        "account_auth_invalidated",
    }
)
DISABLED_CODES = frozenset({"account_deactivated", "account_suspended", "account_deleted"})
_CALLER_CODES = frozenset(
    {"invalid_request_error", "invalid_prompt", "context_length_exceeded", "previous_response_not_found"}
)
_DEACTIVATED_TEXT = "account has been deactivated"
_LONGEST_MESSAGE = 64 * 1024
_LONGEST_BALANCE = 64
_MOST_TOKENS = 10**12
_WINDOWS = ("primary", "secondary")


class Action(enum.Enum):
    """What to do while the client has seen nothing."""

    SURFACE = "pass the answer on"
    FAIL_OVER = "try another account"
    REAUTHENTICATE = "try another account, or wait for a newer credential of this one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an answer means. `status`, `code` and `resets_after` are the upstream's."""

    outcome: Outcome
    action: Action
    status: int = 0
    code: str = ""
    resets_after: float | None = None
    message: str = ""


SUCCESS = Verdict(outcome=Outcome.SUCCEEDED, action=Action.SURFACE, status=200)
NEUTRAL = Verdict(outcome=Outcome.NEUTRAL, action=Action.SURFACE)
TRANSIENT = Verdict(outcome=Outcome.TRANSIENT_ERROR, action=Action.FAIL_OVER)
MISCONFIGURED = Verdict(outcome=Outcome.MISCONFIGURED, action=Action.FAIL_OVER)


def judge_trouble(trouble: UpstreamTrouble) -> Verdict:
    """Judges an upstream that gave no answer. An address that may not be used is the account's fault until mended."""
    return MISCONFIGURED if trouble is UpstreamTrouble.ADDRESS_REFUSED else TRANSIENT


def judge_answer(status: int, headers: Mapping[str, str], body: bytes) -> Verdict:
    """Judges an HTTP error answer, or a refused WebSocket handshake."""
    document = json_object(body)
    code, message, error = _error_in(document)
    resets_after = _retry_after(headers.get("retry-after")) or _reset_in(error)
    return judge(status, code, message, resets_after)


def judge_event(document: Mapping[str, Any]) -> Verdict:
    """Judges a failure that came as an event: `response.failed`, or `error` flat or nested, with or without status."""
    response = document.get("response")
    holder = response if isinstance(response, dict) else document
    code, message, error = _error_in(holder)
    headers = document.get("headers")
    told = _retry_after(headers.get("retry-after")) if isinstance(headers, dict) else None
    return judge(_status_in(document), code, message, told or _reset_in(error))


def judge(status: int, code: str, message: str = "", resets_after: float | None = None) -> Verdict:
    """Judges a status and a code. A code says more than a status; status 0 means that there was none."""
    outcome, action = _by_code(code) or _by_status(status, code, message)
    return Verdict(
        outcome=outcome,
        action=action,
        status=status,
        code=bounds.text(code),
        resets_after=resets_after,
        message=bounds.text(message, _LONGEST_MESSAGE),
    )


def status_of(verdict: Verdict) -> int:
    """Returns the HTTP status for a failure that came as an event."""
    if verdict.status >= 400:
        return verdict.status
    if verdict.outcome in {Outcome.RATE_LIMITED, Outcome.QUOTA_EXCEEDED}:
        return 429
    if verdict.code in {"server_is_overloaded", "overloaded_error", "slow_down"}:
        return 503
    return 400 if verdict.code in _CALLER_CODES else 502


def _by_code(code: str) -> tuple[Outcome, Action] | None:
    if code in RATE_CODES:
        return Outcome.RATE_LIMITED, Action.FAIL_OVER
    if code in QUOTA_CODES:
        return Outcome.QUOTA_EXCEEDED, Action.FAIL_OVER
    if code in AUTH_CODES:
        return Outcome.AUTH_REJECTED, Action.REAUTHENTICATE
    if code in DISABLED_CODES:
        return Outcome.ACCOUNT_DISABLED, Action.FAIL_OVER
    if code in OVERLOAD_CODES:
        return Outcome.TRANSIENT_ERROR, Action.FAIL_OVER
    return None


def _by_status(status: int, code: str, message: str) -> tuple[Outcome, Action]:
    if status in {401, 403}:
        if _DEACTIVATED_TEXT in message.lower():
            return Outcome.ACCOUNT_DISABLED, Action.FAIL_OVER
        return Outcome.AUTH_REJECTED, Action.REAUTHENTICATE
    if status == 402:
        return Outcome.QUOTA_EXCEEDED, Action.FAIL_OVER
    if status == 404 and not code:
        return Outcome.MISCONFIGURED, Action.FAIL_OVER
    if status == 429:
        return Outcome.RATE_LIMITED, Action.FAIL_OVER
    if status == 408 or status >= 500:
        return Outcome.TRANSIENT_ERROR, Action.FAIL_OVER
    return Outcome.NEUTRAL, Action.SURFACE


def _status_in(document: Mapping[str, Any]) -> int:
    status = document.get("status", document.get("status_code"))
    return status if isinstance(status, int) and 100 <= status <= 599 else 0


def _error_in(document: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """Returns code, message and the error object of an answer or event, whatever its shape."""
    error = document.get("error")
    if isinstance(error, str):
        message = document.get("message")
        return error, message if isinstance(message, str) else "", document
    holder = error if isinstance(error, dict) else document
    code = holder.get("code") or document.get("code")
    kind = holder.get("type")
    if not isinstance(code, str) or not code:
        # The backend's quota answer has its code in `type`; other types ("rate_limit_error") are classes, not codes.
        known = RATE_CODES | QUOTA_CODES | AUTH_CODES | DISABLED_CODES
        code = kind if isinstance(kind, str) and kind in known else ""
    message = holder.get("message") or document.get("detail") or ""
    return code, message if isinstance(message, str) else "", holder


def _reset_in(error: Mapping[str, Any]) -> float | None:
    relative = error.get("resets_in_seconds")
    if isinstance(relative, int | float) and (told := _seconds(relative)):
        return told
    absolute = error.get("resets_at")
    if isinstance(absolute, int | float) and (told := _seconds(_number(absolute) - time.time())):
        return told
    message = error.get("message")
    return _hint_in(message) if isinstance(message, str) else None


_HINT = re.compile(r"try again in (\d+(?:\.\d+)?)\s*(ms|s|m)\b", re.IGNORECASE)
_HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def _hint_in(message: str) -> float | None:
    found = _HINT.search(message)
    return _seconds(_number(found[1]) * _UNITS[found[2].lower()]) if found else None


def _retry_after(told: Any) -> float | None:
    """Returns the seconds of a `Retry-After`, which tells them as they are or as a date."""
    if not isinstance(told, str) or not told.endswith(" GMT"):
        return _seconds(told)
    try:
        until = datetime.strptime(told, _HTTP_DATE).replace(tzinfo=UTC)
    except ValueError:
        return None
    return _seconds(until.timestamp() - time.time())


def _seconds(value: Any) -> float | None:
    seconds = _number(value)
    return seconds if 0 < seconds <= bounds.LONGEST_TIME else None


def _number(value: Any) -> float:
    """Returns what can be read as a number; else NaN, which is in no range."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def usage_in(usage: Any) -> TokenUsage | None:
    """Returns the tokens of a response's `usage`, in the Responses or in the chat completions shape."""
    if not isinstance(usage, dict):
        return None
    inputs = usage.get("input_tokens_details") or usage.get("prompt_tokens_details")
    outputs = usage.get("output_tokens_details") or usage.get("completion_tokens_details")
    return TokenUsage(
        input_tokens=_count(usage, "input_tokens") or _count(usage, "prompt_tokens"),
        cached_input_tokens=_count(inputs, "cached_tokens"),
        output_tokens=_count(usage, "output_tokens") or _count(usage, "completion_tokens"),
        reasoning_tokens=_count(outputs, "reasoning_tokens"),
    )


def windows_in_headers(headers: Mapping[str, str]) -> tuple[RateLimitWindow, ...]:
    """Returns the rate limit windows of `x-codex-…` response headers."""
    told = []
    for position in _WINDOWS:
        prefix = f"x-codex-{position}-"
        window = _window(
            headers.get(f"{prefix}used-percent"),
            headers.get(f"{prefix}window-minutes"),
            headers.get(f"{prefix}reset-at"),
        )
        if window:
            told.append(window)
    return tuple(told)


def credits_in_headers(headers: Mapping[str, str]) -> Credits | None:
    """Returns the credits of `x-codex-credits-…` response headers."""
    if "x-codex-credits-has-credits" not in headers:
        return None
    return Credits(
        has_credits=headers["x-codex-credits-has-credits"].lower() == "true",
        unlimited=headers.get("x-codex-credits-unlimited", "").lower() == "true",
        balance=bounds.text(headers.get("x-codex-credits-balance", ""), _LONGEST_BALANCE),
    )


def windows_in_event(document: Mapping[str, Any]) -> tuple[RateLimitWindow, ...]:
    """Returns the windows of a `codex.rate_limits` event; none when it is about another limit than Codex's."""
    limits = document.get("rate_limits")
    if not isinstance(limits, dict) or not _is_about_codex(document):
        return ()
    told = []
    for position in _WINDOWS:
        limit = limits.get(position)
        if isinstance(limit, dict):
            resets = limit.get("reset_at", limit.get("resets_at"))
            window = _window(limit.get("used_percent"), limit.get("window_minutes"), resets)
            if window:
                told.append(window)
    return tuple(told)


def credits_in_event(document: Mapping[str, Any]) -> Credits | None:
    """Returns the credits of a `codex.rate_limits` event."""
    told = document.get("credits")
    if not isinstance(told, dict) or not _is_about_codex(document) or "has_credits" not in told:
        return None
    return Credits(
        has_credits=told.get("has_credits") is True,
        unlimited=told.get("unlimited") is True,
        balance=_balance(told.get("balance")),
    )


def _balance(told: Any) -> str:
    if isinstance(told, str):
        return bounds.text(told, _LONGEST_BALANCE)
    plausible = isinstance(told, int | float) and math.isfinite(_number(told))
    return bounds.text(str(told), _LONGEST_BALANCE) if plausible else ""


def _is_about_codex(document: Mapping[str, Any]) -> bool:
    names = (document.get(name) for name in ("limit_id", "metered_limit_name", "limit_name"))
    return all(name is None or (isinstance(name, str) and name in {"", "codex"}) for name in names)


def _window(used: Any, minutes: Any, reset_at: Any) -> RateLimitWindow | None:
    used_percent, length = _number(used), _number(minutes) * 60.0
    if not (0 <= used_percent <= 1000 and 0 < length <= bounds.LONGEST_TIME):
        return None
    left = _number(reset_at) - time.time()
    return RateLimitWindow(
        length=length,
        used_percent=min(used_percent, 100.0),
        resets_after=left if 0 <= left <= bounds.LONGEST_TIME else None,
    )


def _count(holder: Any, name: str) -> int:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, int) and 0 <= value <= _MOST_TOKENS else 0
