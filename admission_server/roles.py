"""Who may call what: role tokens from a file, compared in constant time, and the interceptor that asks for one.

The tokens file has lines `<role> <token>`, several lines a role if need be (to change a token without a gap). A `#`
begins a comment.
"""

import enum
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from admission_server.errors import CallError, Forbidden, Unauthenticated, abort

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]

SHORTEST_TOKEN = 8
_BEARER = "bearer "


class Role(enum.StrEnum):
    """What the holder of a token may do."""

    EDGE = "edge"
    WORKER = "worker"
    CONTROL = "control"
    READER = "reader"


class TokensFileError(Exception):
    """The tokens file cannot be used; the message says why, without any token."""


class RoleTokens:
    """Tokens and their roles. Only hashes are kept."""

    def __init__(self, tokens: Iterable[tuple[Role, str]]) -> None:
        self._hashes = [(role, _hash(token)) for role, token in tokens]

    @classmethod
    def from_file(cls, path: Path) -> "RoleTokens":
        """Reads a tokens file. Raises `TokensFileError`."""
        return cls(read_tokens(path))

    def role_of(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> Role | None:
        """Returns the role of a call's token, None without a valid one. Takes the same time whichever token it is."""
        for name, value in metadata or ():
            if name == "authorization" and isinstance(value, str) and value[: len(_BEARER)].lower() == _BEARER:
                given = _hash(value[len(_BEARER) :].strip())
                matches = [role for role, known in self._hashes if hmac.compare_digest(given, known)]
                return matches[0] if matches else None
        return None


def read_tokens(path: Path) -> list[tuple[Role, str]]:
    """Returns the tokens in a file with their roles, at least one. Raises `TokensFileError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TokensFileError(f"cannot read {path}: {error}") from None
    tokens = []
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[0] not in set(Role) or len(words[1]) < SHORTEST_TOKEN:
            raise TokensFileError(
                f"{path}, line {number}: must be '<role> <token>' with a role of {', '.join(Role)} "
                f"and a token of at least {SHORTEST_TOKEN} characters"
            )
        tokens.append((Role(words[0]), words[1]))
    if not tokens:
        raise TokensFileError(f"{path} has no tokens")
    return tokens


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


HOLDERS = frozenset({Role.EDGE, Role.WORKER, Role.CONTROL})
CONTROLLERS = frozenset({Role.CONTROL})
ANYBODY = frozenset(Role)


class RoleInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not subscriptable at run time
    """Lets a call through if its role may make it. `permissions` says who may, by service; services that are not named
    are open to every role, and `open_services` to everybody.
    """

    def __init__(
        self, tokens: RoleTokens, *, permissions: Mapping[str, frozenset[Role]], open_services: frozenset[str]
    ) -> None:
        self._tokens = tokens
        self._permissions = permissions
        self._open_services = open_services

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler":
        """Refuses a call before anything of it is read, or lets it through."""
        service = handler_call_details.method.rpartition("/")[0].lstrip("/")
        handler = await continuation(handler_call_details)
        if handler is None or service in self._open_services:
            return handler
        role = self._tokens.role_of(handler_call_details.invocation_metadata)
        if role is None:
            return _refusal(handler, Unauthenticated("needs a role token: metadata 'authorization: Bearer <token>'"))
        allowed = self._permissions.get(service, ANYBODY)
        if role not in allowed:
            return _refusal(handler, Forbidden(f"the role {role} may not call {service}"))
        return handler


def _refusal(handler: "Handler", error: CallError) -> "Handler":
    async def refuse(_request: Any, context: Any) -> None:
        await abort(context, error)

    if handler.response_streaming:
        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
    else:
        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
    return make(refuse, handler.request_deserializer, handler.response_serializer)
