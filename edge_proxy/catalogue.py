"""The model catalogue, in the shape that the asker reads: Codex wants `models`, OpenAI clients want `data`. Pure."""

from typing import Any

import orjson

from edge_proxy.sse import json_object


def models_answer(body: bytes, *, for_codex: bool) -> bytes:
    """Returns an upstream's catalogue, of either shape, as a client wants it. Unknown keys of entries pass through."""
    document = json_object(body)
    entries = _objects(document.get("models"))
    items = _objects(document.get("data")) or [_item(entry) for entry in entries if entry.get("slug")]
    if for_codex:
        return orjson.dumps({"models": entries, "object": "list", "data": items})
    return orjson.dumps({"object": "list", "data": items})


def _item(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": entry["slug"],
        "object": "model",
        "created": 0,
        "owned_by": "openai",
        "metadata": {
            name: entry[name]
            for name in ("display_name", "description", "context_window", "visibility")
            if entry.get(name) is not None
        },
    }


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
