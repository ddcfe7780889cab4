"""Which headers pass, both ways. Pure.

Stripped in both directions: hop-by-hop headers and those that `connection` names, cookies, forwarded addresses,
credentials. The client's own metadata (`originator`, `user-agent`, `x-codex-…`) goes on as it came: the edge disguises
nobody. The client's `x-openai-internal-codex-responses-lite` is never trusted; the body says whether it is due.
"""

import secrets
from collections.abc import Iterable, Sequence
from functools import lru_cache

from admission_client.lease import AccountKind, GrantedAccount

Headers = Sequence[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NEVER_UPSTREAM = _HOP_BY_HOP | {
    "accept",
    "accept-encoding",
    "authorization",
    "chatgpt-account-id",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "openai-organization",
    "openai-project",
    "true-client-ip",
    "via",
    "x-api-key",
    "x-openai-internal-codex-responses-lite",
    "x-real-ip",
    "x-request-id",
}
_NEVER_UPSTREAM_PREFIXES = ("x-forwarded-", "cf-", "x-sluicegate-", "sec-websocket-")
_NEVER_DOWNSTREAM = _HOP_BY_HOP | {
    # An upstream, or a proxy before it, may echo what it was sent: the account's credential above all.
    "authorization",
    "chatgpt-account-id",
    "cookie",
    "forwarded",
    "openai-organization",
    "openai-project",
    "true-client-ip",
    "via",
    "x-api-key",
    "x-real-ip",
    "alt-svc",
    "content-encoding",
    "content-length",
    "date",
    "nel",
    "report-to",
    "server",
    "set-cookie",
    "strict-transport-security",
    "www-authenticate",
    "x-request-id",
}
_NEVER_DOWNSTREAM_PREFIXES = ("x-forwarded-", "cf-", "x-sluicegate-", "sec-websocket-")
_LOCAL_ACCOUNT_PREFIXES = ("email_", "local_")
"""Ids that were made up at import because the login named none: the upstream knows no such account."""

_NAMES_KEPT = 1024
_LONGEST_NAME_KEPT = 64
"""Bytes: whoever sends long names, and ever new ones, must not fill the memory with them."""

TURN_STATE = "x-codex-turn-state"
SOCKET_BETA = "responses_websockets=2026-02-06"
_HTTP_BETA = "responses=experimental"


def request_id_of(sent: str) -> str:
    """Returns the client's request id if it can be logged and passed on, else a new one."""
    if 0 < len(sent) <= 128 and sent.isascii() and sent.isprintable() and " " not in sent:
        return sent
    return f"req_{secrets.token_hex(12)}"


def upstream_headers(
    received: Headers,
    account: GrantedAccount,
    *,
    request_id: str,
    accept: str = "",
    content_encoding: str = "",
    responses_lite: bool = False,
    forward_simulate: bool = False,
) -> list[tuple[str, str]]:
    """Returns the headers of the upstream request. `content_encoding` is that of the body as it will be sent."""
    dropped = _named_by_connection(received)
    if not forward_simulate:
        dropped.add("x-simulate")
    if account.owner_moved:
        dropped.add(TURN_STATE)
    passed = []
    for raw_name, value in received:
        name = _upstream_name(raw_name) if len(raw_name) <= _LONGEST_NAME_KEPT else _upstream_name.__wrapped__(raw_name)
        if name and name not in dropped:
            passed.append((name, value.decode("latin-1")))
    passed += [("authorization", f"Bearer {account.access_token}"), ("x-request-id", request_id)]
    passed += [("accept-encoding", "identity")]
    if accept:
        passed += [("accept", accept), ("content-type", "application/json")]
    if content_encoding:
        passed.append(("content-encoding", content_encoding))
    if responses_lite:
        passed.append(("x-openai-internal-codex-responses-lite", "true"))
    owner = account.upstream_account_id
    if account.kind is AccountKind.CHATGPT and owner and not owner.startswith(_LOCAL_ACCOUNT_PREFIXES):
        passed.append(("chatgpt-account-id", owner))
    return passed


def socket_headers(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns upstream headers made fit for a WebSocket handshake: the socket beta, without the one it excludes."""
    betas: list[str] = []
    others: list[tuple[str, str]] = []
    for name, value in headers:
        if name == "openai-beta":
            betas += [token.strip() for token in value.split(",")]
        elif name not in {"accept", "content-type", "accept-encoding", "content-encoding", "user-agent"}:
            others.append((name, value))
    kept = [token for token in betas if token and token not in {_HTTP_BETA, SOCKET_BETA}]
    return [*others, ("openai-beta", ", ".join([*kept, SOCKET_BETA]))]


def client_headers(received: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Returns the headers of an upstream response that the client may see, with names in lower case."""
    headers = list(received)
    dropped = _named_by_connection(headers)
    passed = []
    for raw_name, value in headers:
        name = _client_name(raw_name) if len(raw_name) <= _LONGEST_NAME_KEPT else _client_name.__wrapped__(raw_name)
        if name and not (dropped and name.decode("latin-1") in dropped):
            passed.append((name, value))
    return passed


# Few names come again and again: what becomes of each is found out once.


@lru_cache(maxsize=_NAMES_KEPT)
def _upstream_name(raw_name: bytes) -> str:
    """Returns the name that a client's header has on its way upstream; empty when it does not go there."""
    name = raw_name.decode("latin-1")  # ASGI: lower case already
    return "" if name in _NEVER_UPSTREAM or name.startswith(_NEVER_UPSTREAM_PREFIXES) else name


@lru_cache(maxsize=_NAMES_KEPT)
def _client_name(raw_name: bytes) -> bytes:
    """Returns the name that an upstream's header has for the client; empty when it does not go there."""
    name = raw_name.decode("latin-1").lower()
    if name == "x-request-id":
        return b"x-upstream-request-id"
    return b"" if name in _NEVER_DOWNSTREAM or name.startswith(_NEVER_DOWNSTREAM_PREFIXES) else name.encode("latin-1")


def _named_by_connection(received: Iterable[tuple[bytes, bytes]]) -> set[str]:
    named: set[str] = set()
    for name, value in received:
        if len(name) == 10 and name.lower() == b"connection":
            named.update(token.strip().lower() for token in value.decode("latin-1").split(","))
    return named
