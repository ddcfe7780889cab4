"""The refusals of the backend, of the auth server and of the API, word for word as they give them. Pure.

The backend has two dialects: `{"detail": …}` from its own front, and `{"error": {…}}` from what stands behind it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from upstream_simulator.faults import Faults

_STATUS_OF_CODE = {
    "usage_limit_reached": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "usage_not_included": 429,
    "quota_exceeded": 429,
    "server_error": 500,
    "server_is_overloaded": 503,
    "overloaded_error": 529,
    "slow_down": 503,
    "previous_response_not_found": 400,
    "context_length_exceeded": 400,
    "account_deactivated": 401,
    "token_expired": 401,
    "token_invalidated": 401,
    "token_revoked": 401,
    "invalid_api_key": 401,
    "invalid_authentication": 401,
}
_TYPE_OF_STATUS = {400: "invalid_request_error", 401: "invalid_request_error", 403: "permission_error", 429: "requests"}
_SENTENCE_OF_CODE = {
    "rate_limit_exceeded": "Rate limit reached. Please try again in 1s.",
    "insufficient_quota": "You exceeded your current quota, please check your plan and billing details.",
    "usage_not_included": "To use Codex with your ChatGPT plan, upgrade to Plus.",
    "server_is_overloaded": "Our servers are currently overloaded. Please try again later.",
    "account_deactivated": "Your OpenAI account has been deactivated.",
    "token_expired": "Provided authentication token is expired. Please try signing in again.",
    "token_invalidated": "Your authentication token has been invalidated. Please try signing in again.",
    "invalid_authentication": "Could not validate your authentication token.",
    "invalid_api_key": "Incorrect API key provided.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A status, the JSON body that goes with it, and headers."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    def as_frame(self) -> dict[str, Any]:
        """Returns the refusal as an error frame of a WebSocket."""
        error = self.body.get("error") or {"type": "invalid_request_error", "message": self.body.get("detail", "")}
        frame: dict[str, Any] = {"type": "error", "status": self.status, "error": error}
        if self.headers:
            frame["headers"] = dict(self.headers)
        return frame


def detail(status: int, sentence: str) -> Refusal:
    """Returns a refusal of the backend's front."""
    return Refusal(status=status, body={"detail": sentence})


def error(status: int, *, code: str | None, message: str | None = None, param: str | None = None) -> Refusal:
    """Returns a refusal of the API behind the front, with a sentence that fits the code."""
    sentence = message or _SENTENCE_OF_CODE.get(code or "", f"The request failed with status {status}.")
    kind = _TYPE_OF_STATUS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return Refusal(status=status, body={"error": {"message": sentence, "type": kind, "param": param, "code": code}})


def previous_response_not_found(response_id: str) -> Refusal:
    """Returns the refusal on which clients send everything again."""
    return error(
        400,
        code="previous_response_not_found",
        message=f"Previous response with id '{response_id}' not found.",
        param="previous_response_id",
    )


def usage_limit_reached(*, plan: str, now: float, resets_in: float) -> Refusal:
    """Returns the refusal of an account whose window is used up. It has a type and, as over there, no code."""
    return Refusal(
        status=429,
        body={
            "error": {
                "type": "usage_limit_reached",
                "message": "The usage limit has been reached",
                "plan_type": plan,
                "resets_at": int(now + resets_in),
                "resets_in_seconds": int(resets_in),
            }
        },
    )


def refusal_on_request(faults: Faults, *, plan: str, now: float, window_resets_in: float) -> Refusal | None:
    """Returns the refusal that the faults ask for, None when they ask for none."""
    if not faults.refuses:
        return None
    refusal = _worded(faults, plan, now, window_resets_in)
    if faults.retry_after is None:
        return refusal
    return Refusal(status=refusal.status, body=refusal.body, headers={"retry-after": faults.retry_after})


def _worded(faults: Faults, plan: str, now: float, window_resets_in: float) -> Refusal:
    if faults.no_code:
        return Refusal(status=faults.status or 429, body={"error": {"message": "Too many requests. Slow down."}})
    if faults.code == "usage_limit_reached":
        resets_in = window_resets_in if faults.resets_in is None else faults.resets_in
        return usage_limit_reached(plan=plan, now=now, resets_in=resets_in)
    status = faults.status or _STATUS_OF_CODE.get(faults.code or "", 500)
    return error(status, code=faults.code or _usual_code(status))


def _usual_code(status: int) -> str | None:
    return {401: "token_invalidated", 429: "rate_limit_exceeded", 500: "server_error"}.get(status)
