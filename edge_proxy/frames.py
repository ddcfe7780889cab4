"""What passes over a client's socket, read and written. Pure.

A Codex ignores an error frame without an integer `status`, and waits until its own time limit; so every error frame
that leaves here has one, and every refusal to come back later has its `retry-after` beside it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from msgspec import Raw

from edge_proxy.answers import answered
from edge_proxy.document import Document, all_keys, first_byte, text_in, written
from edge_proxy.errors import LONGEST_RETRY_AFTER, BodyMalformed, refusal_of
from edge_proxy.headers import TURN_STATE
from edge_proxy.normalise import backend_body
from edge_proxy.outcome import judge_event
from edge_proxy.sse import json_object, type_of
from edge_proxy.turn import TurnRequest

CREATE = "response.create"
_WAIT = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_ONLY_ON_SOCKETS = frozenset({"type", "stream_id", "generate"})
_NAMES = {"type": Raw(), "stream_id": Raw(b'""')}
_ADDRESSES = {"session_id": "session-id", "thread_id": "thread-id", TURN_STATE: TURN_STATE}


@dataclass(frozen=True, slots=True)
class ClientFrame:
    """One frame of a client."""

    text: str
    document: Document
    kind: str
    stream_id: str

    @classmethod
    def of(cls, text: str | None) -> "ClientFrame":
        """Reads a frame; None stands for a binary one. Raises `BodyMalformed`."""
        if text is None:
            raise BodyMalformed("Only text frames are understood here.")
        document = all_keys(text, what="frame")
        if any(first_byte(document.get(name, missing)) != b'"' for name, missing in _NAMES.items()):
            raise BodyMalformed("A frame's `type` is a string, and so is its `stream_id`.")
        return cls(text, document, text_in(document, "type"), text_in(document, "stream_id"))

    def turn(self) -> TurnRequest:
        """Returns what the turn asks for."""
        return TurnRequest.of(self.document)

    def addresses(self, handshake: Mapping[str, str]) -> Mapping[str, str]:
        """Returns the headers that say whose turn it is: the frame's own metadata over those of the handshake."""
        metadata = _metadata_in(self.document)
        own = {
            header: text_in(metadata, name)
            for name, header in _ADDRESSES.items()
            if first_byte(metadata.get(name, Raw())) == b'"'
        }
        return {**handshake, **own} if own else handshake


def for_another_owner(frame: ClientFrame) -> ClientFrame:
    """Returns a turn without the turn state in its metadata: the account that it names is not the one that serves."""
    metadata = _metadata_in(frame.document)
    if TURN_STATE not in metadata:
        return frame
    kept = {name: value for name, value in metadata.items() if name != TURN_STATE}
    document = {**frame.document, "client_metadata": Raw(written(kept))}
    return replace(frame, text=written(document).decode(), document=document)


def backend_frame(document: Document) -> str:
    """Returns a `/v1` turn as the Codex backend accepts it on a socket. Raises `ParameterRefused`."""
    body = backend_body({name: value for name, value in document.items() if name not in {"type", "stream_id"}})
    del body["stream"]
    return written({"type": CREATE, **body}).decode()


def http_body(document: Document, *, normalised: bool) -> bytes:
    """Returns a turn as the body of an HTTP request, for an upstream that does not speak WebSocket."""
    body = {name: value for name, value in document.items() if name not in _ONLY_ON_SOCKETS}
    return written(backend_body(body) if normalised else {**body, "stream": True})


def _metadata_in(document: Document) -> Document:
    metadata = document.get("client_metadata", Raw())
    return all_keys(metadata, what="client_metadata") if first_byte(metadata) == b"{" else {}


def addressed(data: bytes, stream_id: str) -> str:
    """Returns an upstream's frame for the client's line of that name; most upstreams echo the name themselves."""
    if stream_id and b'"stream_id"' not in data and data.startswith(b"{"):
        return f'{{"stream_id":{orjson.dumps(stream_id).decode()},{data[1:].decode("utf-8", "replace")}'
    return data.decode("utf-8", "replace")


def presentable(data: bytes) -> bytes:
    """Returns an upstream's frame that belongs to no turn, with an error made readable for every client."""
    if type_of(data) != "error":
        return data
    document = json_object(data)
    return mended_error(document) if needs_mending(document) else data


def needs_mending(document: Mapping[str, Any]) -> bool:
    """Returns whether an upstream's error frame would leave its client waiting or give it up."""
    status = document.get("status")
    if type(status) is not int or not 400 <= status <= 599 or status in {401, 403}:
        return True
    headers = document.get("headers")
    return status in {429, 503} and not (isinstance(headers, dict) and _is_wait(headers.get("retry-after")))


def _is_wait(value: Any) -> bool:
    """Returns whether every client reads this as whole seconds: a Codex ends the turn over half of one, or a date."""
    return (
        isinstance(value, str | int) and _WAIT.fullmatch(str(value)) is not None and int(value) <= LONGEST_RETRY_AFTER
    )


def mended_error(document: dict[str, Any]) -> bytes:
    """Returns an upstream's error frame with a status, and with `retry-after` where coming back makes sense."""
    told = document.get("headers")
    headers = {name.lower(): value for name, value in told.items()} if isinstance(told, dict) else {}
    mended = refusal_of(answered(judge_event({**document, "headers": headers}), document)).frame()
    headers.pop("retry-after", None)
    if headers or "headers" in mended:
        mended["headers"] = {**headers, **mended.get("headers", {})}
    return orjson.dumps({**document, **mended})
