r"""The allow-list: one row a route. What is not here is answered 404 by the edge itself and takes no seat.

Matching is after exactly one percent-decoding; a path that could mean two things (`..`, `//`, `\`, an encoded slash)
is refused, not interpreted. No row leads to the admin API.
"""

import enum
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from admission_client.lease import AccountKind
from edge_proxy.errors import PathRefused, RouteNotFound

MIB = 1024 * 1024
RESPONSES_BODY_LIMIT = 128 * MIB
BODY_LIMIT = 32 * MIB


class Answerer(enum.Enum):
    """Who answers a route."""

    TURN = "a Responses turn, by an account"
    COMPACT = "a compaction, by an account"
    PLAIN = "any other POST, by an account of the route's kind"
    MODELS = "the catalogue, by an account"
    USAGE = "the control API"
    ACCOUNTS_CHECK = "the edge itself, from the client's own identity"


class Dialect(enum.Enum):
    """Whose shapes a route speaks."""

    CODEX = "codex"
    OPENAI = "openai"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row. `target` is the path below an account's base URL, the Codex backend's and an OpenAI-compatible one's."""

    name: str
    method: str
    paths: tuple[str, ...]
    answerer: Answerer
    dialect: Dialect
    lane: str = "lanes/proxy_http"
    kind: AccountKind | None = None
    body_limit: int = BODY_LIMIT
    chatgpt_target: str = ""
    api_key_target: str = ""
    websocket: bool = False

    def target(self, kind: AccountKind) -> str:
        """Returns the path below the base URL of an account of this kind."""
        return self.chatgpt_target if kind is AccountKind.CHATGPT else self.api_key_target


CODEX = "/backend-api/codex"

ROUTES = (
    Route(
        name="codex_responses",
        method="POST",
        paths=(f"{CODEX}/responses", f"{CODEX}/responses/"),
        answerer=Answerer.TURN,
        dialect=Dialect.CODEX,
        body_limit=RESPONSES_BODY_LIMIT,
        chatgpt_target="/codex/responses",
        api_key_target="/responses",
    ),
    Route(
        name="responses",
        method="POST",
        paths=("/v1/responses", "/v1/responses/"),
        answerer=Answerer.TURN,
        dialect=Dialect.OPENAI,
        body_limit=RESPONSES_BODY_LIMIT,
        chatgpt_target="/codex/responses",
        api_key_target="/responses",
    ),
    Route(
        name="codex_responses_socket",
        method="GET",
        paths=(f"{CODEX}/responses", f"{CODEX}/responses/"),
        answerer=Answerer.TURN,
        dialect=Dialect.CODEX,
        lane="lanes/proxy_websocket",
        chatgpt_target="/codex/responses",
        api_key_target="/responses",
        websocket=True,
    ),
    Route(
        name="responses_socket",
        method="GET",
        paths=("/v1/responses", "/v1/responses/"),
        answerer=Answerer.TURN,
        dialect=Dialect.OPENAI,
        lane="lanes/proxy_websocket",
        chatgpt_target="/codex/responses",
        api_key_target="/responses",
        websocket=True,
    ),
    Route(
        name="compact",
        method="POST",
        paths=(
            f"{CODEX}/responses/compact",
            f"{CODEX}/responses/compact/",
            "/v1/responses/compact",
            "/v1/responses/compact/",
        ),
        answerer=Answerer.COMPACT,
        dialect=Dialect.CODEX,
        lane="lanes/proxy_compact",
        body_limit=RESPONSES_BODY_LIMIT,
        chatgpt_target="/codex/responses",
        api_key_target="/responses/compact",
    ),
    Route(
        name="codex_models",
        method="GET",
        paths=(f"{CODEX}/models",),
        answerer=Answerer.MODELS,
        dialect=Dialect.CODEX,
        chatgpt_target="/codex/models",
        api_key_target="/models",
    ),
    Route(
        name="models",
        method="GET",
        paths=("/v1/models",),
        answerer=Answerer.MODELS,
        dialect=Dialect.OPENAI,
        chatgpt_target="/codex/models",
        api_key_target="/models",
    ),
    Route(
        name="chat_completions",
        method="POST",
        paths=("/v1/chat/completions",),
        answerer=Answerer.PLAIN,
        dialect=Dialect.OPENAI,
        kind=AccountKind.API_KEY,
        api_key_target="/chat/completions",
    ),
    Route(
        name="embeddings",
        method="POST",
        paths=("/v1/embeddings",),
        answerer=Answerer.PLAIN,
        dialect=Dialect.OPENAI,
        kind=AccountKind.API_KEY,
        api_key_target="/embeddings",
    ),
    Route(
        name="usage",
        method="GET",
        paths=("/api/codex/usage", "/api/codex/usage/", "/backend-api/wham/usage", "/v1/usage"),
        answerer=Answerer.USAGE,
        dialect=Dialect.CODEX,
        lane="lanes/dashboard",
    ),
    Route(
        name="accounts_check",
        method="GET",
        paths=("/backend-api/wham/accounts/check", "/api/codex/accounts/check"),
        answerer=Answerer.ACCOUNTS_CHECK,
        dialect=Dialect.CODEX,
        lane="",
    ),
)

_BY_PATH = {(route.method, path, route.websocket): route for route in ROUTES for path in route.paths}
_ALIAS = f"{CODEX}/v1/"


def match(method: str, raw_path: bytes, *, websocket: bool = False) -> Route:
    """Returns the row for a request. Raises `RouteNotFound`, or `PathRefused` for a path with two meanings."""
    path = _decoded(raw_path)
    if path.startswith(_ALIAS):
        path = f"{CODEX}/{path.removeprefix(_ALIAS)}"
    route = _BY_PATH.get((method, path, websocket))
    if route is None:
        raise RouteNotFound
    return route


def _decoded(raw_path: bytes) -> str:
    if b"%" in raw_path:
        lowered = raw_path.lower()
        if b"%2f" in lowered or b"%5c" in lowered:
            raise PathRefused("The path holds an encoded slash.")
        raw_path = unquote_to_bytes(raw_path)
    try:
        path = raw_path.decode("ascii")
    except UnicodeDecodeError:
        raise RouteNotFound from None
    if "//" in path or "\\" in path or ".." in path.split("/"):
        raise PathRefused("The path is not in its plain form.")
    return path
