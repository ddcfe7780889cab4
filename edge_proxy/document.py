"""JSON objects of clients, read at their top level only. Pure.

All of the text is checked, but nothing is built below the top level: a body of many million items costs no more memory
than its bytes. Values stay the text that they were, so that numbers go on as they came. Of a key that comes twice the
last counts, here and in whatever is written anew.
"""

import codecs
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from edge_proxy.errors import BodyMalformed

Document = Mapping[str, Raw]

_ABSENT = Raw()
_KNOWN = (
    *("client_metadata", "generate", "input", "instructions", "messages", "model", "previous_response_id"),
    *("prompt_cache_key", "stream", "stream_id", "text", "tools", "type"),
)
"""What is looked at, and what may be large."""
_Known = msgspec.defstruct("_Known", [(name, Raw, _ABSENT) for name in _KNOWN])
_LARGEST_BUILT = 1024 * 1024
_TAIL = 4096
_CHECKED_AT_ONCE = 1024 * 1024
_ADDITIONAL_TOOLS = re.compile(rb'"type"\s*:\s*"additional_tools"')


def known_keys(data: bytes | str, *, what: str = "body") -> dict[str, Raw]:
    """Returns those values of an object that this package looks at. Raises `BodyMalformed`, which names `what`."""
    _check_text(data, what)
    found = _parsed(data, _Known, what)
    return {name: value for name in _KNOWN if memoryview(value := getattr(found, name))}


def all_keys(data: bytes | str | Raw, *, what: str = "body") -> dict[str, Raw]:
    """Returns all values of an object. Raises `BodyMalformed`, also where there may be too many keys."""
    text = data.encode() if isinstance(data, str) and not data.isascii() else data
    if isinstance(text, Raw):
        size = len(memoryview(text))
    else:
        _check_text(text, what)
        size = len(text)
    if size > _LARGEST_BUILT:
        found = _parsed(text, _Known, what)
        if size - sum(len(memoryview(getattr(found, name))) for name in _KNOWN) > _LARGEST_BUILT:
            raise BodyMalformed(f"The {what} has too much in other keys than {', '.join(_KNOWN)}.")
    document: dict[str, Raw] = _parsed(text, dict[str, Raw], what)
    return document


def written(document: Mapping[str, Any]) -> bytes:
    """Returns an object as JSON: values that were read as they came, others as they are."""
    return msgspec.json.encode(document)


def text_in(document: Document, name: str) -> str:
    """Returns a value that is text; empty for any other."""
    value = document.get(name, _ABSENT)
    return msgspec.json.decode(value, type=str) if first_byte(value) == b'"' else ""


def is_literally(document: Document, name: str, literal: bytes) -> bool:
    """Returns whether a value is just this text, for instance `true`."""
    return memoryview(document.get(name, _ABSENT)) == literal


def has(document: Document, name: str) -> bool:
    """Returns whether a value is there that says something."""
    nothings = (b"", b"null", b"false", b"0", b'""', b"[]", b"{}")
    return not any(is_literally(document, name, nothing) for nothing in nothings)


def elements_of(value: Raw, *, what: str) -> list[Raw]:
    """Returns what a list consists of; empty for another value. Raises `BodyMalformed` when that would be a burden."""
    if first_byte(value) != b"[":
        return []
    if len(memoryview(value)) > _LARGEST_BUILT:
        raise BodyMalformed(f"`{what}` is too large.")
    return msgspec.json.decode(value, type=list[Raw])


def first_byte(value: Raw) -> bytes:
    """Returns what tells the kind of a value: `{`, `[`, a quote or else."""
    return bytes(memoryview(value)[:1])


def asks_for_compaction(items: Raw) -> bool:
    """Returns whether the last item of an input is a compaction trigger: a short one, so only the end is looked at."""
    end = bytes(memoryview(items)[-_TAIL:])
    if first_byte(items) != b"[" or b'"compaction_trigger"' not in end:
        return False
    end = end[:-1].rstrip()
    start = end.rfind(b"{")
    while start >= 0:
        try:
            return text_in(all_keys(end[start:]), "type") == "compaction_trigger"
        except BodyMalformed:  # it began further in front
            start = end.rfind(b"{", 0, start)
    return False


def has_additional_tools(items: Raw) -> bool:
    """Returns whether an input has an item of additional tools. Inside of text its quotes would be escaped."""
    return first_byte(items) == b"[" and _ADDITIONAL_TOOLS.search(memoryview(items)) is not None


def _parsed(data: bytes | str | Raw, kind: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        raise BodyMalformed(f"The {what} is not a JSON object.") from None
    except ValueError:
        raise BodyMalformed(f"The {what} is not valid JSON.") from None
    except RecursionError:
        raise BodyMalformed(f"The {what} is nested too deeply.") from None


def _check_text(data: bytes | str, what: str) -> None:
    # What is skipped is not decoded, so that nobody else would see it. In pieces: one wide character makes all wide.
    if isinstance(data, str) or data.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    try:
        for start in range(0, len(view), _CHECKED_AT_ONCE):
            decoder.decode(view[start : start + _CHECKED_AT_ONCE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise BodyMalformed(f"The {what} is not valid JSON: its text is not UTF-8.") from None
