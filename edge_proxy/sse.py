"""A parser for server-sent events that is fed with bytes as they arrive, and never changes them. Pure.

However the bytes are cut, the same events come out. It looks no deeper than it must: an event's name comes from its
`event:` line, and its data stay bytes until somebody needs them.
"""

import re
from typing import Any, NamedTuple

import orjson

LARGEST_EVENT = 16 * 1024 * 1024
COMMENT_KEEPALIVE = b": keepalive\n\n"
CODEX_KEEPALIVE = b'event: codex.keepalive\ndata: {"type":"codex.keepalive"}\n\n'

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_TYPE_FIRST = re.compile(rb'\{\s*"type"\s*:\s*"([\w.-]+)"')


class EventTooLarge(Exception):
    """One event exceeds the limit."""


class SseEvent(NamedTuple):
    """One event. `name` is the `event:` line's, else the `type` inside the data, else empty."""

    name: str
    data: bytes

    def document(self) -> dict[str, Any]:
        """Returns the data as a JSON object; empty when they are not one."""
        return json_object(self.data)


class SseParser:
    """Feed it every chunk, in order. Raises `EventTooLarge` when an event has no end."""

    def __init__(self, *, limit: int = LARGEST_EVENT) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._searched = 0
        self._carriage_returns = False

    @property
    def at_boundary(self) -> bool:
        """Whether the last byte fed ended an event, so that another one may be put in here."""
        return not self._pending

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Returns the events that this chunk completes."""
        if not self._carriage_returns and b"\r" in chunk:
            self._carriage_returns = True
        data = chunk
        if self._pending:
            self._pending += chunk
            if self._boundary(self._pending, self._searched) < 0:
                self._keep(b"")
                return []
            data = bytes(self._pending)
            self._pending.clear()
        events: list[SseEvent] = []
        start = 0
        search = self._searched
        while (end := self._boundary(data, search)) >= 0:
            event = _any_event_in(data[start:end]) if self._carriage_returns else _event_in(data, start, end)
            if event is not None:
                events.append(event)
            start = search = end
        self._keep(data[start:])
        return events

    def _boundary(self, data: bytes | bytearray, search: int) -> int:
        if not self._carriage_returns:  # one memchr instead of a regular expression: nearly every stream
            found = data.find(b"\n\n", search)
            return found + 2 if found >= 0 else -1
        match = _BLANK_LINE.search(data, search)
        return match.end() if match else -1

    def _keep(self, rest: bytes) -> None:
        self._pending += rest
        if self._pending and self._pending[0] in b"\r\n" and not self._pending.strip(b"\r\n"):
            self._pending.clear()  # the second half of a line end, or blank lines: nothing has begun
        self._searched = max(0, len(self._pending) - 3)
        if len(self._pending) > self._limit:
            raise EventTooLarge


def json_object(data: bytes | str) -> dict[str, Any]:
    """Returns JSON text as an object; empty when it is not one."""
    try:
        document = orjson.loads(data)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def type_of(data: bytes | str) -> str:
    """Returns the `type` of a JSON object, without parsing all of it where it comes first, as it nearly always does."""
    raw = data.encode() if isinstance(data, str) else data
    first = _TYPE_FIRST.match(raw)
    if first:
        return first[1].decode("ascii")
    kind = json_object(raw).get("type")
    return kind if isinstance(kind, str) else ""


def _event_in(data: bytes, start: int, end: int) -> SseEvent | None:
    # Nearly every event has just these two lines: looked at where it stands, without taking it to pieces.
    name_start = start + 7
    name_end = data.find(b"\n", name_start)
    if (
        data.startswith(b"event: ", start)
        and data.startswith(b"data: ", name_end + 1)
        and data.find(b"\n", name_end + 7) == end - 2
        and name_end > name_start
    ):
        return SseEvent(data[name_start:name_end].decode("utf-8", "replace"), data[name_end + 7 : end - 2])
    return _any_event_in(data[start:end])


def _any_event_in(block: bytes) -> SseEvent | None:
    name = b""
    data: list[bytes] = []
    for line in _lines(block):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    if not data:
        return None  # comments, or fields of no meaning here
    joined = data[0] if len(data) == 1 else b"\n".join(data)
    if not name:
        return SseEvent(type_of(joined), joined)
    return SseEvent(name.decode("utf-8", "replace"), joined)


def _lines(block: bytes) -> list[bytes]:
    return _LINE_END.split(block) if b"\r" in block else block.split(b"\n")
