"""Who an account is: `auth.json` in its two spellings, the claims inside its tokens, and the id that follows. Pure.

Signatures are not checked: the tokens come from the operator or from the auth server, and the upstream checks them.
`chatgpt_account_id` names a workspace and may be shared by several seats, so a seat is workspace and user together.
"""

import base64
import binascii
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from control_api.errors import InputRefused

MAX_AUTH_JSON = 1024 * 1024
_AUTH_CLAIM = "https://api.openai.com/auth"
_IN_HEADER = re.compile(r"[!-~]+")
UNKNOWN_EMAIL = "unknown@example.com"
UNKNOWN_PLAN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a sign-in yields. All of it is secret."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    id_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One seat of one workspace, as its tokens describe it."""

    account_id: str = ""
    user_id: str = ""
    email: str = UNKNOWN_EMAIL
    plan: str = UNKNOWN_PLAN
    workspace_id: str = ""
    workspace_label: str = ""
    seat_type: str = ""
    nobody: str = ""
    """Stands for the seat when its tokens say nothing about it: strangers must not become one account."""

    @property
    def key(self) -> str:
        """What makes two sign-ins the same seat."""
        return f"{self.account_id}\n{self.user_id or self.nobody or self.email}"

    @property
    def local_id(self) -> str:
        """The account's id in this system: `[a-z0-9_]+`."""
        if self.account_id:
            return f"{slug(self.account_id)}_{_digest(self.user_id or self.workspace_id or self.email, 8)}"
        if self.email != UNKNOWN_EMAIL:
            return f"email_{_digest(self.email, 12)}"
        return f"local_{_digest(self.user_id or self.nobody, 12)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A finished sign-in, from a file or from the auth server."""

    tokens: Tokens
    seat: Seat
    access_expires_at: float | None
    refreshed_at: float | None = None


HeaderText = Annotated[str, StringConstraints(pattern=r"^[!-~]*$", max_length=64 * 1024)]
"""What may stand in a header: printable ASCII without spaces."""


class _TokenSet(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    id_token: HeaderText = Field(default="", validation_alias=AliasChoices("id_token", "idToken"))
    access_token: HeaderText = Field(min_length=1, validation_alias=AliasChoices("access_token", "accessToken"))
    refresh_token: HeaderText = Field(min_length=1, validation_alias=AliasChoices("refresh_token", "refreshToken"))
    account_id: HeaderText | None = Field(default=None, validation_alias=AliasChoices("account_id", "accountId"))


class _AuthJson(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    tokens: _TokenSet
    last_refresh: datetime | None = Field(
        default=None, validation_alias=AliasChoices("last_refresh", "lastRefresh", "lastRefreshAt", "last_refresh_at")
    )


def read_auth_json(content: bytes) -> SignIn:
    """Reads the file that Codex writes. Raises `InputRefused` with the field, never with a value."""
    if len(content) > MAX_AUTH_JSON:
        raise InputRefused(f"An auth.json has at most {MAX_AUTH_JSON} bytes.", field="auth_json")
    try:
        found = json.loads(content)
        _check_shape(found)
        parsed = _AuthJson.model_validate(found)
    except (ValueError, RecursionError) as error:
        raise _refused(error) from None
    tokens = Tokens(
        access_token=parsed.tokens.access_token,
        refresh_token=parsed.tokens.refresh_token,
        id_token=parsed.tokens.id_token,
    )
    return sign_in(tokens, account_id=parsed.tokens.account_id or "", refreshed_at=_seconds_of(parsed.last_refresh))


def sign_in(tokens: Tokens, *, account_id: str = "", refreshed_at: float | None = None) -> SignIn:
    """Describes tokens by their own claims; `account_id` is what came with them, and counts less."""
    return SignIn(
        tokens=tokens,
        seat=seat_of(tokens, account_id=account_id),
        access_expires_at=expiry_of(tokens.access_token),
        refreshed_at=refreshed_at,
    )


def seat_of(tokens: Tokens, *, account_id: str = "") -> Seat:
    """Returns the seat that the tokens speak of; the id token says most, the access token fills the gaps."""
    claims: dict[str, Any] = {}
    for token in (tokens.access_token, tokens.id_token):
        payload = claims_of(token)
        nested = payload.get(_AUTH_CLAIM)
        found = {**payload, **(nested if isinstance(nested, dict) else {})}
        claims.update({name: value for name, value in found.items() if isinstance(value, str) and _is_text(value)})
    user_id = _first(claims, "chatgpt_user_id", "user_id", "chatgpt_account_user_id", "sub")
    told = _first(claims, "chatgpt_account_id")
    account_id = told if _IN_HEADER.fullmatch(told) else account_id[:256]
    email = (claims.get("email") or UNKNOWN_EMAIL).lower()[:320]
    unknown = not account_id and not user_id and email == UNKNOWN_EMAIL
    return Seat(
        account_id=account_id,
        user_id=user_id,
        email=email,
        nobody=fingerprint(tokens.refresh_token) if unknown else "",
        plan=_first(claims, "chatgpt_plan_type")[:64] or UNKNOWN_PLAN,
        workspace_id=_first(claims, "workspace_id", "chatgpt_workspace_id", "organization_id", "org_id", "tenant_id"),
        workspace_label=_first(
            claims, "workspace_label", "workspace_name", "organization_name", "org_name", "tenant_name"
        ),
        seat_type=_first(claims, "seat_type", "chatgpt_seat_type", "entitlement_type")[:64],
    )


def claims_of(token: str) -> dict[str, Any]:
    """Returns the payload of a JWT; empty when it is not one."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


def expiry_of(token: str) -> float | None:
    """Returns when a token expires by its own word, in Unix seconds."""
    expiry = claims_of(token).get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int | float) or not 0 < expiry < 1e11:
        return None
    return float(expiry)


def fingerprint(secret: str) -> str:
    """Returns what stands for a secret where only equality counts: its SHA-256."""
    return hashlib.sha256(secret.encode()).hexdigest()


def slug(text: str) -> str:
    """Returns the text as part of an id."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:64] or "account"


def _seconds_of(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    # Some writers mean "never" by the first day of the calendar.
    return seconds if seconds > 0 else None


def _is_text(claim: str) -> bool:
    """Returns whether a claim can be stored and shown; one that cannot is left out, and never costs a rotated token."""
    return bool(claim) and not any(unicodedata.category(character) in {"Cc", "Cs"} for character in claim)


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _first(claims: Mapping[str, str], *names: str) -> str:
    return next((claims[name][:256] for name in names if name in claims), "")


def _check_shape(found: Any) -> None:
    if not isinstance(found, dict):
        raise InputRefused("An auth.json is a JSON object.", field="auth_json")
    if isinstance(found.get("tokens"), dict):
        return
    if isinstance(found.get("OPENAI_API_KEY"), str):
        raise InputRefused(
            "This file holds an API key and no sign-in: add it as an account of kind api_key.",
            field="auth_json.OPENAI_API_KEY",
        )
    raise InputRefused("The file has no object `tokens`.", field="auth_json.tokens")


def _refused(error: Exception) -> InputRefused:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        return InputRefused(f"{path}: {first['msg']}", field=f"auth_json.{path}" if path else "auth_json")
    return InputRefused("This is not JSON.", field="auth_json")
