"""Makes a `/v1` body what the Codex backend accepts. Pure; used for `chatgpt` accounts on `/v1` only.

The backend answers 400 to parameters it does not know, so those of the public API that only steer quality or cost are
left out, and what would silently change the result is refused here with a name. Unknown keys, tools and items pass.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from edge_proxy.errors import BodyMalformed, ParameterRefused

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


def backend_body(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the body for the backend. Raises `ParameterRefused` for what it could not honour."""
    if document.get("previous_response_id") and document.get("conversation"):
        raise ParameterRefused(
            "`previous_response_id` and `conversation` exclude each other.", param="previous_response_id"
        )
    body = {name: value for name, value in document.items() if name not in _LEFT_OUT}
    body["store"] = False
    body["stream"] = True
    body["input"] = _input(document.get("input"))
    body["instructions"] = document.get("instructions") or ""
    if "include" in document:
        body["include"] = _include(document["include"])
    if "tools" in document:
        body["tools"] = _tools(document["tools"])
    tier = document.get("service_tier")
    if isinstance(tier, str) and tier in _TIERS:
        body["service_tier"] = _TIERS[tier]
    return body


def compaction_body(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the body that makes the backend compact: an ordinary turn whose last input item asks for it."""
    body = backend_body(document)
    items = body["input"]
    trigger = {"type": "compaction_trigger"}
    if isinstance(items, list) and (not items or items[-1] != trigger):
        body["input"] = [*items, trigger]
    return body


def encoded(document: Mapping[str, Any]) -> bytes:
    """Returns a body as JSON. Raises `BodyMalformed`: a parser goes deeper than a writer can."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        raise BodyMalformed("The body is nested too deeply.") from None


def _input(given: Any) -> Any:
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [] if given is None else given


def _include(wanted: Any) -> Any:
    if isinstance(wanted, list):
        for name in wanted:
            if isinstance(name, str) and name not in _INCLUDABLE:
                raise ParameterRefused(f"`include` does not know {name!r}.", param="include")
    return wanted


def _tools(tools: Any) -> Any:
    if not isinstance(tools, list):
        return tools
    return [_tool(tool, index) for index, tool in enumerate(tools)]


def _tool(tool: Any, index: int) -> Any:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(kind, str):
        return tool
    if kind in _REFUSED_TOOLS:
        raise ParameterRefused(f"The tool {kind!r} is not available here.", param=f"tools[{index}].type")
    return {**tool, "type": _RENAMED_TOOLS[kind]} if kind in _RENAMED_TOOLS else tool
