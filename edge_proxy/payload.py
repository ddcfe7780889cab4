"""The body that goes upstream. Untouched wherever the client and the upstream speak the same dialect. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from admission_client.lease import AccountKind
from edge_proxy.body import Body
from edge_proxy.document import written
from edge_proxy.normalise import backend_body, compaction_body
from edge_proxy.routes import Dialect, Route


@dataclass(frozen=True, slots=True)
class Payload:
    """A body to send, and its content encoding."""

    content: bytes
    encoding: str = ""


Prepare = Callable[[Route, AccountKind, Body], Payload]


def untouched(_route: Route, _kind: AccountKind, body: Body) -> Payload:
    """Returns what the client sent."""
    return Payload(body.raw, body.encoding)


def turn_payload(route: Route, kind: AccountKind, body: Body) -> Payload:
    """Returns the body of a turn: another one only where an OpenAI client meets the Codex backend."""
    if route.dialect is Dialect.OPENAI and kind is AccountKind.CHATGPT:
        return Payload(written(backend_body(body.document())))
    return untouched(route, kind, body)


def compaction_payload(route: Route, kind: AccountKind, body: Body) -> Payload:
    """Returns the body of a compaction: the backend has no endpoint for it, only a turn that asks for it."""
    if kind is AccountKind.CHATGPT:
        return Payload(written(compaction_body(body.document())))
    return untouched(route, kind, body)
