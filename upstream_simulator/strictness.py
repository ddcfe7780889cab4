"""What the Codex backend refuses in the body of a turn. Pure: a body in, a refusal or nothing out.

The `/v1` service is lenient and asks `malformed` only.
"""

from collections.abc import Sequence
from typing import Any

from upstream_simulator.refusals import Refusal, detail, error

SOCKET_VERSION = "responses_websockets=2026-02-06"
UNSUPPORTED_PARAMETERS = (
    "background",
    "frequency_penalty",
    "logit_bias",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "n",
    "presence_penalty",
    "prompt_cache_retention",
    "safety_identifier",
    "seed",
    "stop",
    "temperature",
    "top_p",
    "truncation",
    "user",
)
INCLUDABLE = frozenset(
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


def refusal_of_http_turn(body: Any) -> Refusal | None:
    """Returns why the backend would not take this body over HTTP; None when it would."""
    return malformed(body) or _unsupported(body) or _not_as_a_stream(body) or _not_as_items(body)


def refusal_of_socket_turn(body: dict[str, Any]) -> Refusal | None:
    """Returns why the backend would not take this frame; None when it would. A socket always streams."""
    if body.get("store") is not False:
        return detail(400, "Store must be set to false")
    return malformed(body) or _unsupported(body) or _not_as_items(body)


def refusal_of_handshake(beta_headers: Sequence[str]) -> Refusal | None:
    """Returns why the backend would not open a socket for a client with these `openai-beta` headers."""
    versions = {token.strip() for header in beta_headers for token in header.split(",")}
    if "responses=experimental" in versions:
        return detail(400, "openai-beta: responses=experimental cannot be combined with a WebSocket")
    if SOCKET_VERSION not in versions:
        return detail(400, f"openai-beta: {SOCKET_VERSION} is required")
    return None


def refusal_of_compact_endpoint(body: Any) -> Refusal | None:
    """Returns why the older compact endpoint would not take this body. It knows neither `store` nor `stream`."""
    return malformed(body) or _unsupported(body) or _not_as_items(body)


def malformed(body: Any) -> Refusal | None:
    """Returns why nobody could answer this body."""
    if not isinstance(body, dict):
        return detail(400, "Request body must be a JSON object")
    if not isinstance(body.get("model"), str) or not body["model"]:
        return error(
            400, code="missing_required_parameter", message="Missing required parameter: 'model'.", param="model"
        )
    if body.get("previous_response_id") is not None and body.get("conversation") is not None:
        return error(
            400,
            code="mutually_exclusive_parameters",
            message="Mutually exclusive parameters: 'previous_response_id' and 'conversation'.",
            param="previous_response_id",
        )
    return None


def _unsupported(body: dict[str, Any]) -> Refusal | None:
    name = next((name for name in UNSUPPORTED_PARAMETERS if name in body), None)
    return detail(400, f"Unsupported parameter: {name}") if name else None


def _not_as_a_stream(body: dict[str, Any]) -> Refusal | None:
    if body.get("store") is not False:
        return detail(400, "Store must be set to false")
    if body.get("stream") is not True:
        return detail(400, "Stream must be set to true")
    return None


def _not_as_items(body: dict[str, Any]) -> Refusal | None:
    if not isinstance(body.get("input"), list):
        return detail(400, "Input must be a list")
    include = body.get("include")
    unknown = [name for name in include if name not in INCLUDABLE] if isinstance(include, list) else []
    if unknown:
        return error(400, code="invalid_value", message=f"Invalid value: '{unknown[0]}'.", param="include[0]")
    return None
