"""Makes a `/v1` body what the Codex backend accepts. Pure; used for `chatgpt` accounts on `/v1` only.

The backend answers 400 to parameters it does not know, so those of the public API that only steer quality or cost are
left out, and what would silently change the result is refused here with a name. Unknown keys, tools and items pass,
and what need not change goes on as the text that it was.
"""

import re
from typing import Any

import msgspec
from msgspec import Raw

from edge_proxy.document import (
    Document,
    all_keys,
    asks_for_compaction,
    elements_of,
    first_byte,
    has,
    is_literally,
    text_in,
    written,
)
from edge_proxy.errors import ParameterRefused

_LEFT_OUT = frozenset(
    {
        "background",
        "frequency_penalty",
        "max_output_tokens",
        "metadata",
        "presence_penalty",
        "prompt_cache_retention",
        "safety_identifier",
        "seed",
        "stream_options",
        "temperature",
        "top_p",
        "truncation",
        "user",
    }
)
_INCLUDABLE = frozenset(
    {
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "message.output_text.logprobs",
        "reasoning.encrypted_content",
        "web_search_call.action.sources",
    }
)
_REFUSED_TOOLS = frozenset(
    {"file_search", "code_interpreter", "computer_use", "computer_use_preview", "image_generation"}
)
_RENAMED_TOOLS = {"web_search_preview": "web_search"}
_TIERS = {"fast": "priority"}
_TOOLS_OF_INTEREST = re.compile("|".join(_REFUSED_TOOLS | _RENAMED_TOOLS.keys()).encode())
_TRIGGER = b'{"type":"compaction_trigger"}'


def backend_body(document: Document) -> dict[str, Any]:
    """Returns the body for the backend. Raises `ParameterRefused` for what it could not honour."""
    if has(document, "previous_response_id") and has(document, "conversation"):
        raise ParameterRefused(
            "`previous_response_id` and `conversation` exclude each other.", param="previous_response_id"
        )
    body: dict[str, Any] = {name: value for name, value in document.items() if name not in _LEFT_OUT}
    body["store"] = False
    body["stream"] = True
    body["input"] = _input(document)
    if not has(document, "instructions"):
        body["instructions"] = ""
    if "include" in document:
        _check_include(document["include"])
    if "tools" in document:
        body["tools"] = _tools(document["tools"])
    if tier := _TIERS.get(text_in(document, "service_tier")):
        body["service_tier"] = tier
    return body


def compaction_body(document: Document) -> dict[str, Any]:
    """Returns the body that makes the backend compact: an ordinary turn whose last input item asks for it."""
    body = backend_body(document)
    items: Raw = body["input"]
    if first_byte(items) == b"[" and not asks_for_compaction(items):
        inside = bytes(memoryview(items)[1:-1]).strip()
        body["input"] = Raw(b"".join((b"[", inside, b"," if inside else b"", _TRIGGER, b"]")))
    return body


def _input(document: Document) -> Raw:
    given = document.get("input")
    if given is None or is_literally(document, "input", b"null"):
        return Raw(b"[]")
    if first_byte(given) == b'"':
        content = [{"type": "input_text", "text": given}]
        return Raw(msgspec.json.encode([{"type": "message", "role": "user", "content": content}]))
    return given


def _check_include(wanted: Raw) -> None:
    for element in elements_of(wanted, what="include"):
        name = text_in({"name": element}, "name")
        if first_byte(element) == b'"' and name not in _INCLUDABLE:
            raise ParameterRefused(f"`include` does not know {name!r}.", param="include")


def _tools(tools: Raw) -> Raw | list[Raw]:
    if not _TOOLS_OF_INTEREST.search(memoryview(tools)):
        return tools
    elements = elements_of(tools, what="tools")
    return [_tool(tool, index) for index, tool in enumerate(elements)] if elements else tools


def _tool(tool: Raw, index: int) -> Raw:
    if first_byte(tool) != b"{":
        return tool
    keys = all_keys(tool, what="tool")
    kind = text_in(keys, "type")
    if kind in _REFUSED_TOOLS:
        raise ParameterRefused(f"The tool {kind!r} is not available here.", param=f"tools[{index}].type")
    return Raw(written({**keys, "type": _RENAMED_TOOLS[kind]})) if kind in _RENAMED_TOOLS else tool
