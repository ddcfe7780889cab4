"""Who the client is, from headers and the raw peer alone: nothing here decides whether a key is good.

A key of ours comes as `Authorization: Bearer <key>`, or in `x-sluicegate-key` while `Authorization` is the client's own
(ChatGPT mode) and is dropped. Only its SHA-256 leaves this module.
"""

import hashlib
import ipaddress
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

import orjson

from edge_proxy.errors import BodyMalformed, KeyMissing, OriginRefused

KEY_HEADER = "x-sluicegate-key"
_HOW_TO = (
    "This is a ChatGPT sign-in, not a key of this gateway. Keep it, and add the gateway's key as the header "
    f'`{KEY_HEADER}` (in Codex: `http_headers = {{ "{KEY_HEADER}" = "…" }}` of the model provider).'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The flow that a request belongs to: a key, or a peer without one."""

    key_sha256: bytes | None = field(default=None, repr=False)
    peer: str | None = None


def identify(headers: Mapping[str, str], peer: str, *, keyless: bool) -> Client:
    """Returns who asks. `peer` is the raw socket peer: forwarded headers say nothing here. Raises `KeyMissing`."""
    key = headers.get(KEY_HEADER, "").strip()
    if not key:
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        bearer = credential.strip() if scheme.lower() == "bearer" else ""
        if not looks_like_jwt(bearer):
            key = bearer
        elif not (keyless and is_loopback(peer)):
            raise KeyMissing(_HOW_TO)
        else:
            _refuse_pages(headers)
    if key:
        return Client(key_sha256=hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest())
    if keyless and is_loopback(peer):
        _refuse_pages(headers)
        return Client(peer=peer)
    raise KeyMissing(f"No API key came with the request: send `Authorization: Bearer <key>` or `{KEY_HEADER}`.")


def check_origin(headers: Mapping[str, str], allowed: frozenset[str]) -> None:
    """Lets programs pass, and pages of allowed origins. Raises `OriginRefused`."""
    origin = headers.get("origin")
    if origin is not None and origin.strip().lower() not in allowed:
        raise OriginRefused("Web pages of this origin may not connect here.")


def _refuse_pages(headers: Mapping[str, str]) -> None:
    # A page in a browser on this machine comes from a loopback address as well: it gives itself away by its origin,
    # or, when its own name was made to mean this machine, by that name.
    check_origin(headers, frozenset())
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        host = "?"
    if host and host != "localhost" and not is_loopback(host):
        raise OriginRefused("Without a key, call this gateway by a name of this machine: localhost, 127.0.0.1.")


def looks_like_jwt(credential: str) -> bool:
    """Returns whether a bearer token is a JWT: keys of ours never have dots."""
    return credential.startswith("eyJ") and credential.count(".") == 2


@lru_cache(maxsize=1024)
def is_loopback(peer: str) -> bool:
    """Returns whether an address is of this machine."""
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False


def upstream_account_of(headers: Mapping[str, str]) -> str:
    """Returns the ChatGPT account id that the client itself believes to use. Raises `BodyMalformed` without one."""
    named = headers.get("chatgpt-account-id", "").strip()
    if named:
        return named
    bearer = headers.get("authorization", "").partition(" ")[2].strip()
    claimed = _claimed_account(bearer) if looks_like_jwt(bearer) else ""
    if not claimed:
        raise BodyMalformed("The request names no ChatGPT account.")
    return claimed


def _claimed_account(jwt: str) -> str:
    payload = jwt.split(".")[1]
    try:
        claims = orjson.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        account = claims.get("https://api.openai.com/auth", claims)["chatgpt_account_id"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return account if isinstance(account, str) else ""
