"""The models that exist over here, in the shape of the Codex backend and in that of the OpenAI API. Pure."""

from typing import Any

_MODELS = (("gpt-5.5", "GPT-5.5"), ("gpt-5.5-mini", "GPT-5.5 mini"))
_CREATED = 1_790_000_000


def codex_models() -> list[dict[str, Any]]:
    """Returns the entries of `/backend-api/codex/models`."""
    return [_codex_entry(slug, name, priority) for priority, (slug, name) in enumerate(_MODELS)]


def openai_models() -> list[dict[str, Any]]:
    """Returns the entries of `/v1/models`."""
    return [{"id": slug, "object": "model", "created": _CREATED, "owned_by": "simulator"} for slug, _ in _MODELS]


def _codex_entry(slug: str, name: str, priority: int) -> dict[str, Any]:
    return {
        "slug": slug,
        "display_name": name,
        "description": "A stand-in that answers at once.",
        "base_instructions": "Answer briefly.",
        "default_reasoning_level": "medium",
        "supported_reasoning_levels": [
            {"effort": "low", "description": "Quick"},
            {"effort": "medium", "description": "Balanced"},
            {"effort": "high", "description": "Thorough"},
        ],
        "shell_type": "unified_exec",
        "visibility": "list",
        "supported_in_api": True,
        "priority": priority,
        "minimal_client_version": "0.0.0",
        "supports_reasoning_summaries": True,
        "support_verbosity": True,
        "default_verbosity": "medium",
        "truncation_policy": {"mode": "tokens", "limit": 10_000},
        "supports_parallel_tool_calls": True,
        "context_window": 272_000,
        "input_modalities": ["text", "image"],
        "available_in_plans": ["free", "plus", "pro", "team", "business", "enterprise", "edu"],
        "prefer_websockets": True,
        "experimental_supported_tools": [],
    }
