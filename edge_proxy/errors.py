"""What can go wrong at the edge, and the one table that says how each of it looks to a client.

* `EdgeError`: base class
    * `ClientGone`: nobody is left to answer
    * `RouteNotFound`, `PathRefused`, `OriginRefused`, `KeyMissing`, `BodyTooLarge`, `BodyMalformed`, `BodyTimeout`,
      `ParameterRefused`, `ControlUnavailable`, `BodyBudgetExhausted`, `Draining`: told before any upstream was asked
    * `UpstreamFailed`: the upstream did not do it: unreachable, too late, cut, or out of credentials
    * `UpstreamAnswered`: the upstream's own error answer, to be passed on

A refusal keeps clients alive (a Codex CLI ends the user's turn on a 429 without an integer `Retry-After`): every 429
and 503 has one, except where trying again cannot help, and those say so with `x-should-retry: false`.
"""

import enum
import math
import re
import time
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from admission_client.errors import AcquireRejected, AdmissionError, AdmissionUnavailable, Denied, SessionSuperseded
from admission_client.lease import Denial, DenialReason

LONGEST_RETRY_AFTER = 120
HOPELESS_CODES = frozenset({"usage_limit_reached", "insufficient_quota"})
"""Codes that clients understand as "come back much later": without `Retry-After`, or they would."""

_CODEX_AGENT = re.compile(r"^codex[\w -]*/(\d{1,9})\.(\d{1,9})", re.IGNORECASE)
_CODEX_RETRIES_429_SINCE = (0, 162)


class EdgeError(Exception):
    """Base class of everything that this package raises on purpose."""


class ClientGone(EdgeError):
    """The client closed its connection, or has stopped reading."""


class RouteNotFound(EdgeError):
    """Not on the allow-list."""


class PathRefused(EdgeError):
    """A path that could mean two things. The message says what is wrong with it."""


class OriginRefused(EdgeError):
    """A web page asked, and pages have no business here."""


class KeyMissing(EdgeError):
    """No API key of ours came with the request."""


class BodyTooLarge(EdgeError):
    """The body, or what it decodes to, exceeds the route's limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body exceeds {limit} bytes.")


class BodyMalformed(EdgeError):
    """The body cannot be read as what it claims to be."""


class BodyTimeout(EdgeError):
    """The client did not send its body in time."""


class BodyBudgetExhausted(EdgeError):
    """All requests together hold as many bytes as they may."""


class ParameterRefused(EdgeError):
    """A parameter that the upstream would refuse as well."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class ControlUnavailable(EdgeError):
    """The control API did not answer."""


class Draining(EdgeError):
    """This edge is stopping; another one, or its successor, will serve."""


class UpstreamTrouble(enum.Enum):
    """How an upstream failed to answer."""

    UNREACHABLE = "upstream_unavailable"
    TOO_LATE = "upstream_request_timeout"
    SILENT = "stream_idle_timeout"
    CUT = "stream_incomplete"
    TOO_LARGE = "stream_event_too_large"
    MALFORMED = "upstream_error"
    UNAUTHORISED = "upstream_auth_unavailable"
    ADDRESS_REFUSED = "upstream_address_refused"


class UpstreamFailed(EdgeError):
    """The upstream did not do it."""

    def __init__(self, trouble: UpstreamTrouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble


class UpstreamAnswered(EdgeError):
    """The upstream's own error answer: its status, and its body where that is JSON."""

    def __init__(
        self, status: int, body: bytes, *, code: str = "", message: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message or f"The upstream answered {status}.")
        self.status = status
        self.body = body
        self.code = code
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal as the client will see it, over HTTP, inside a stream or on a socket."""

    status: int
    code: str
    kind: str
    message: str
    reason: str = ""
    lane: str = ""
    param: str | None = None
    retry_after: int | None = None
    resets_at: int | None = None
    body: bytes = field(default=b"", repr=False)
    """The upstream's own body, which then goes on unchanged."""

    @property
    def hopeless(self) -> bool:
        """Whether the client should not try again by itself."""
        return self.code in HOPELESS_CODES

    @property
    def error(self) -> dict[str, Any]:
        """The inner object of the OpenAI envelope."""
        error: dict[str, Any] = {"message": self.message, "type": self.kind, "code": self.code, "param": self.param}
        if self.resets_at is not None:
            error["resets_at"] = self.resets_at
            error["resets_in_seconds"] = max(0, self.resets_at - int(time.time()))
        return error

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Returns the response headers, without content length and request id."""
        headers = [(b"content-type", b"application/json")]
        if self.lane:
            headers.append((b"x-sluicegate-lane", self.lane.encode()))
        if self.reason:
            headers.append((b"x-sluicegate-reason", self.reason.encode()))
        if self.retry_after is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after))
        if self.status == 408:  # the rest of the body may still come, and must not be taken for a request
            headers.append((b"connection", b"close"))
        if self.hopeless:
            headers.append((b"x-should-retry", b"false"))
        return headers

    def envelope(self) -> bytes:
        """Returns the response body."""
        return self.body or orjson.dumps({"error": self.error})

    def frame(self) -> dict[str, Any]:
        """Returns the WebSocket error frame. Codex ignores one without `status`, so there always is one."""
        frame: dict[str, Any] = {"type": "error", "status": self.status, "error": self.error}
        if self.body:
            try:
                told = orjson.loads(self.body)
            except ValueError:
                told = None
            if isinstance(told, dict) and isinstance(told.get("error"), dict):
                frame["error"] = told["error"]
        if self.retry_after is not None:
            frame["headers"] = {"retry-after": str(self.retry_after)}
        return frame


@dataclass(frozen=True, slots=True)
class _Look:
    status: int
    code: str
    kind: str = "server_error"
    default_retry: int = 5
    """Seconds for `Retry-After` when nobody knows better."""


_OVERLOAD = "rate_limit_error"

_DENIALS: dict[DenialReason, _Look] = {
    DenialReason.LANE_FULL: _Look(429, "proxy_overloaded", _OVERLOAD),
    DenialReason.STAGE_FULL: _Look(429, "global_admission_timeout", _OVERLOAD),
    DenialReason.ACCOUNT_STREAMS_FULL: _Look(429, "account_stream_cap", _OVERLOAD),
    DenialReason.ACCOUNT_RESPONSE_CREATES_FULL: _Look(429, "account_response_create_cap", _OVERLOAD),
    DenialReason.KEY_STREAMS_FULL: _Look(429, "api_key_stream_cap", _OVERLOAD),
    DenialReason.FAIR_SHARE: _Look(429, "fair_share", _OVERLOAD),
    DenialReason.QUEUE_FULL: _Look(429, "queue_full", _OVERLOAD),
    DenialReason.PAUSED: _Look(429, "resource_paused", _OVERLOAD, 30),
    DenialReason.WITHDRAWN: _Look(503, "request_withdrawn", default_retry=1),
    DenialReason.RECOVERING: _Look(503, "admission_recovering", default_retry=2),
    DenialReason.DRAINING: _Look(503, "admission_draining", default_retry=2),
    DenialReason.SERVER_OVERLOADED: _Look(503, "admission_overloaded"),
    DenialReason.POLICY_UNAVAILABLE: _Look(503, "policy_unavailable"),
    DenialReason.KEY_UNKNOWN: _Look(401, "invalid_api_key", "authentication_error"),
    DenialReason.KEY_EXPIRED: _Look(401, "api_key_expired", "authentication_error"),
    DenialReason.MODEL_NOT_ALLOWED: _Look(403, "model_not_allowed", "permission_error"),
    DenialReason.NO_ACCOUNT: _Look(503, "no_accounts", default_retry=30),
    DenialReason.UNSUPPORTED_BY_ACCOUNT: _Look(404, "unsupported_by_account", "invalid_request_error"),
    DenialReason.QUOTA_EXHAUSTED: _Look(429, "usage_limit_reached", "usage_limit_reached"),
    DenialReason.COOLING_DOWN: _Look(429, "accounts_cooling_down", _OVERLOAD),
    DenialReason.CREDENTIAL_UNAVAILABLE: _Look(503, "upstream_auth_unavailable", default_retry=10),
    DenialReason.OWNER_GONE: _Look(400, "previous_response_not_found", "invalid_request_error"),
    DenialReason.OWNER_BUSY: _Look(429, "previous_response_owner_busy", _OVERLOAD),
    DenialReason.SESSION_FULL: _Look(503, "session_full"),
    DenialReason.SESSION_STALE: _Look(503, "session_stale", default_retry=2),
}

_FOR_CLIENTS = {DenialReason.KEY_UNKNOWN: "This API key is not known here."}
"""Instead of the admission server's words, where those are about what clients never see."""

_ERRORS: dict[type[Exception], _Look] = {
    RouteNotFound: _Look(404, "not_found", "invalid_request_error"),
    PathRefused: _Look(400, "invalid_path", "invalid_request_error"),
    OriginRefused: _Look(403, "origin_not_allowed", "permission_error"),
    KeyMissing: _Look(401, "client_key_missing", "authentication_error"),
    BodyTooLarge: _Look(413, "payload_too_large", "invalid_request_error"),
    BodyMalformed: _Look(400, "invalid_request_error", "invalid_request_error"),
    ParameterRefused: _Look(400, "unsupported_parameter", "invalid_request_error"),
    BodyTimeout: _Look(408, "request_body_timeout", "invalid_request_error"),
    BodyBudgetExhausted: _Look(503, "body_budget_exhausted"),
    ControlUnavailable: _Look(503, "control_unavailable"),
    Draining: _Look(503, "edge_draining", default_retry=2),
    AdmissionUnavailable: _Look(503, "admission_unavailable", default_retry=2),
    SessionSuperseded: _Look(503, "session_superseded", default_retry=2),
    AcquireRejected: _Look(500, "internal_error"),
}

_TROUBLES: dict[UpstreamTrouble, _Look] = {
    UpstreamTrouble.UNREACHABLE: _Look(502, "upstream_unavailable"),
    UpstreamTrouble.TOO_LATE: _Look(504, "upstream_request_timeout"),
    UpstreamTrouble.SILENT: _Look(504, "stream_idle_timeout"),
    UpstreamTrouble.CUT: _Look(502, "stream_incomplete"),
    UpstreamTrouble.TOO_LARGE: _Look(502, "stream_event_too_large"),
    UpstreamTrouble.MALFORMED: _Look(502, "upstream_error"),
    UpstreamTrouble.UNAUTHORISED: _Look(503, "upstream_auth_unavailable", default_retry=10),
    UpstreamTrouble.ADDRESS_REFUSED: _Look(502, "upstream_address_refused"),
}

_UNEXPECTED = _Look(500, "internal_error")


def refusal_of(error: BaseException, *, lane: str = "", user_agent: str = "") -> Refusal:
    """Returns how an error looks to this client. What is not in a table is an internal error, told without details."""
    if isinstance(error, Denied):
        refusal = _of_denial(error.denial)
    elif isinstance(error, UpstreamAnswered):
        refusal = _of_answer(error)
    else:
        refusal = _of_error(error)
    refusal = replace(refusal, lane=lane.removeprefix("lanes/"))
    local = not isinstance(error, UpstreamAnswered) and not refusal.hopeless
    if local and refusal.status == 429 and _ends_turns_on_429(user_agent):
        refusal = replace(refusal, status=503)
    return refusal


def _of_denial(denial: Denial) -> Refusal:
    look = _DENIALS.get(denial.reason)
    if look is None:
        look = _DENIALS[DenialReason.LANE_FULL if denial.resource.startswith("lanes/") else DenialReason.STAGE_FULL]
    refusal = Refusal(
        status=look.status,
        code=look.code,
        kind=look.kind,
        message=_FOR_CLIENTS.get(denial.reason) or denial.message or _sentence(denial),
        reason=denial.reason.value,
        retry_after=_retry_after(look, denial.retry_after),
    )
    if denial.reason is DenialReason.QUOTA_EXHAUSTED and denial.retry_after is not None:
        refusal = replace(refusal, resets_at=int(time.time()) + math.ceil(denial.retry_after))
    return refusal


def _sentence(denial: Denial) -> str:
    what = denial.reason.value.replace("_", " ")
    if not denial.resource:
        return f"Refused: {what}."
    return f"Refused: {what} ({denial.resource}: {denial.held} of {denial.limit} seats taken)."


def _of_answer(error: UpstreamAnswered) -> Refusal:
    code = error.code or ("rate_limit_exceeded" if error.status == 429 else "upstream_error")
    # Statuses that are none, and that of a proxy of ours that wants a sign-in, are not the client's business.
    status = error.status if 400 <= error.status <= 599 and error.status != 407 else 502
    look = _Look(status, code, _OVERLOAD if status == 429 else "server_error")
    return Refusal(
        status=look.status,
        code=code,
        kind=look.kind,
        message=str(error),
        reason="upstream",
        retry_after=_retry_after(look, error.retry_after),
        body=error.body,
    )


def _of_error(error: BaseException) -> Refusal:
    wanted: float | None = None
    if isinstance(error, UpstreamFailed):
        look = _TROUBLES[error.trouble]
        reason = error.trouble.value
    else:
        look = next((_ERRORS[base] for base in type(error).__mro__ if base in _ERRORS), _UNEXPECTED)
        reason = look.code
        wanted = getattr(error, "retry_after", None)
    told = isinstance(error, EdgeError | AdmissionError) and not isinstance(error, AcquireRejected)
    return Refusal(
        status=look.status,
        code=look.code,
        kind=look.kind,
        message=(str(error) if told else "") or _PLAIN.get(look.code, "Something failed inside the edge."),
        reason=reason,
        param=error.param if isinstance(error, ParameterRefused) else None,
        retry_after=_retry_after(look, wanted),
    )


_PLAIN = {
    "not_found": "There is no such route here.",
    "client_key_missing": "No API key came with the request.",
    "request_body_timeout": "The request body did not arrive in time.",
    "body_budget_exhausted": "Too many request bodies are being read at once. Try again shortly.",
    "edge_draining": "This edge is stopping. Try again.",
    "control_unavailable": "The control API does not answer.",
}


def _retry_after(look: _Look, wanted: float | None) -> int | None:
    if look.status not in {429, 503} or look.code in HOPELESS_CODES:
        return None
    seconds = look.default_retry if wanted is None else math.ceil(wanted)
    return min(max(seconds, 1), LONGEST_RETRY_AFTER)


def _ends_turns_on_429(user_agent: str) -> bool:
    found = _CODEX_AGENT.match(user_agent)
    return found is not None and (int(found[1]), int(found[2])) < _CODEX_RETRIES_429_SINCE
