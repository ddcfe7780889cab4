"""A turn, on paper: what it asks for, and what its events say while it runs. Pure, for HTTP and WebSocket alike."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from admission_client import bounds
from admission_client.lease import AccountKind, AccountNeeds, Credits, RateLimitWindow, TokenUsage
from edge_proxy.document import Document, asks_for_compaction, has_additional_tools, is_literally, text_in
from edge_proxy.headers import TURN_STATE
from edge_proxy.outcome import credits_in_event, usage_in, windows_in_event
from edge_proxy.sse import json_object

RESPONSE_CREATE = "stages/response_create"
COMPACT_RESPONSE_CREATE = "stages/compact_response_create"
UPSTREAM_WEBSOCKET_CONNECT = "stages/upstream_websocket_connect"
KEY_STREAMS = "keys/-/streams"
ACCOUNT_STREAMS = "accounts/-/streams"
ACCOUNT_RESPONSE_CREATES = "accounts/-/response_creates"

TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
_SILENT_PREFIX = "codex."
_SESSION_HEADERS = ("session-id", "session_id", "x-codex-session-id", "x-codex-conversation-id")
_RESPONSE_ID = re.compile(rb'"id"\s*:\s*"([^"\\]{1,256})"')


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """What the edge must know of a turn's body."""

    model: str = ""
    stream: bool = False
    previous_response_id: str = ""
    prompt_cache_key: str = ""
    compaction: bool = False
    responses_lite: bool = False
    warm_up: bool = False

    @classmethod
    def of(cls, document: Document) -> "TurnRequest":
        """Reads a body. Fields of the wrong type are taken as absent: to refuse them is the upstream's business."""
        items = document.get("input")
        return cls(
            model=text_in(document, "model"),
            stream=is_literally(document, "stream", b"true"),
            previous_response_id=text_in(document, "previous_response_id"),
            prompt_cache_key=text_in(document, "prompt_cache_key"),
            compaction=items is not None and asks_for_compaction(items),
            responses_lite=items is not None and has_additional_tools(items),
            warm_up=is_literally(document, "generate", b"false"),
        )

    @property
    def stage(self) -> str:
        """The stage that the turn passes through."""
        return COMPACT_RESPONSE_CREATE if self.compaction else RESPONSE_CREATE

    def needs(self, headers: Mapping[str, str], *, kind: AccountKind | None = None) -> AccountNeeds:
        """Returns what the turn's account must be, from body and headers."""
        turn_state = headers.get(TURN_STATE, "")
        return AccountNeeds(
            model=bounds.text(self.model),
            kind=kind,
            affinity_keys=affinity_keys(headers, self.prompt_cache_key),
            preferred_owner_key=opaque_key("turn", turn_state) if turn_state else "",
            required_owner_key=response_key(self.previous_response_id) if self.previous_response_id else "",
        )


def turn_resources(stage: str, *, with_key: bool) -> tuple[str, ...]:
    """Returns the seats of a turn, in the order in which to wait for them. No stage: nothing is created."""
    streams = (KEY_STREAMS, ACCOUNT_STREAMS) if with_key else (ACCOUNT_STREAMS,)
    return (stage, *streams, ACCOUNT_RESPONSE_CREATES) if stage else streams


def affinity_keys(headers: Mapping[str, str], prompt_cache_key: str) -> tuple[str, ...]:
    """Returns the soft keys of a turn, strongest first: thread, session, prompt cache."""
    thread = headers.get("thread-id", "")
    session = next((headers[name] for name in _SESSION_HEADERS if headers.get(name)), "")
    named = (("thread", thread), ("session", session), ("cache", prompt_cache_key))
    return tuple(opaque_key(kind, value) for kind, value in named if value)


def response_key(response_id: str) -> str:
    """Returns the owned key of a response id."""
    return opaque_key("response", response_id)


def opaque_key(kind: str, value: str) -> str:
    """Returns a key of bounded length that stands for a client's value."""
    key = f"{kind}:{value}"
    if len(key.encode("utf-8", "surrogatepass")) <= bounds.LONGEST_TEXT and value.isprintable():
        return key
    return f"{kind}:sha256:{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"


@dataclass(slots=True)
class TurnWatch:
    """What the events of a response have said so far. Fed with names and data; keeps no event."""

    visible: bool = False
    """Whether the client has to see something: telemetry and keepalives do not count."""
    created: bool = False
    seen_before_failure: bool = False
    """Whether something visible came before the failure."""
    terminal: str = ""
    """Name of the event that ended it."""
    failure: dict[str, Any] = field(default_factory=dict)
    """The event that said so, when it failed."""
    response_id: str = ""
    usage: TokenUsage | None = None
    windows: tuple[RateLimitWindow, ...] = ()
    credits: Credits | None = None
    events: int = 0

    def observe(self, name: str, data: bytes) -> None:
        """Takes in one event."""
        self.events += 1
        if name.startswith(_SILENT_PREFIX):
            if name == "codex.rate_limits":
                self._read_rate_limits(data)
            return
        if name in TERMINAL:
            self._read_terminal(name, data)
        elif name == "response.created":
            self.created = True
            self.response_id = _response_id_in(data)
        self.visible = True

    @property
    def failed(self) -> bool:
        """Whether it ended in a failure."""
        return bool(self.failure)

    def _read_rate_limits(self, data: bytes) -> None:
        document = json_object(data)
        self.windows = windows_in_event(document) or self.windows
        self.credits = credits_in_event(document) or self.credits

    def _read_terminal(self, name: str, data: bytes) -> None:
        document = json_object(data)
        self.terminal = name
        response = document.get("response")
        if isinstance(response, dict):
            self.response_id = _text(response, "id") or self.response_id
            self.usage = usage_in(response.get("usage")) or self.usage
        if name in {"response.failed", "error"}:
            self.failure = document or {"type": name}
            self.seen_before_failure = self.visible


def _response_id_in(data: bytes) -> str:
    # The event repeats instructions and tools, tens of kilobytes: its id comes near the front, before any of them.
    found = _RESPONSE_ID.search(data, 0, 512)
    if found:
        return found[1].decode("utf-8", "replace")
    response = json_object(data).get("response")
    return _text(response, "id") if isinstance(response, dict) else ""


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def failure_event(error: Mapping[str, Any], *, response_id: str = "", sequence_number: int | None = None) -> bytes:
    """Returns `response.failed` as JSON text, for a turn that ends without an end of its own."""
    event: dict[str, Any] = {"type": "response.failed"}
    if sequence_number is not None:
        event["sequence_number"] = sequence_number
    response: dict[str, Any] = {"object": "response", "status": "failed", "error": dict(error)}
    if response_id:
        response["id"] = response_id
    event["response"] = {**response, "incomplete_details": None}
    return orjson.dumps(event)
