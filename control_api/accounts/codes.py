"""Error codes of the upstream and its auth server that end an account or its credential for good. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from control_api.accounts.status import StatusEvent

_SIGN_IN_AGAIN = (
    "account_auth_invalidated",
    "account_session_expired",
    "app_session_terminated",
    "invalid_grant",
    "invalid_refresh_token",
    "refresh_token_expired",
    "refresh_token_invalidated",
    "refresh_token_reused",
    "token_expired",
    "token_invalidated",
    "token_revoked",
)
_CLOSED = ("account_deactivated", "account_deleted", "account_suspended")

PERMANENT: Mapping[str, StatusEvent] = MappingProxyType(
    dict.fromkeys(_SIGN_IN_AGAIN, StatusEvent.CREDENTIAL_DEAD) | dict.fromkeys(_CLOSED, StatusEvent.ACCOUNT_DISABLED)
)
"""What a code means when the auth server says it. `token_expired` is permanent there and only there."""

REVOKED: Mapping[str, StatusEvent] = MappingProxyType(
    {code: event for code, event in PERMANENT.items() if code not in {"token_expired", "invalid_grant"}}
)
"""What a code means when the upstream says it of an access token: an expired one is refreshed, and nothing is lost."""


def code_of(status: int, payload: Any) -> str:
    """Returns the error code of an answer: `error.code`, `error`, `error_code`, `code`, else `http_<status>`."""
    if isinstance(payload, dict):
        error = payload.get("error")
        nested = error.get("code") if isinstance(error, dict) else error
        for candidate in (nested, payload.get("error_code"), payload.get("code")):
            if isinstance(candidate, str) and candidate:
                return candidate[:128]
    return f"http_{status}"


def has_code(status: int, payload: Any) -> bool:
    """Returns whether an answer carries an error code of its own."""
    return code_of(status, payload) != f"http_{status}"
