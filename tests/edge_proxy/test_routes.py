"""The allow-list."""

import pytest

from admission_client.lease import AccountKind
from edge_proxy.errors import PathRefused, RouteNotFound
from edge_proxy.routes import ROUTES, match


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", b"/backend-api/codex/responses", "codex_responses"),
        ("POST", b"/backend-api/codex/responses/", "codex_responses"),
        ("POST", b"/backend-api/codex/v1/responses", "codex_responses"),
        ("POST", b"/v1/responses", "responses"),
        ("POST", b"/v1/%72esponses", "responses"),
        ("POST", b"/v1/responses/compact", "compact"),
        ("POST", b"/backend-api/codex/responses/compact", "compact"),
        ("GET", b"/v1/models", "models"),
        ("GET", b"/backend-api/codex/models", "codex_models"),
        ("POST", b"/v1/chat/completions", "chat_completions"),
        ("GET", b"/api/codex/usage", "usage"),
        ("GET", b"/backend-api/wham/usage", "usage"),
        ("GET", b"/backend-api/wham/accounts/check", "accounts_check"),
        ("GET", b"/api/codex/accounts/check", "accounts_check"),
    ],
)
def test_what_codex_and_the_sdks_need_is_on_the_list(method: str, path: bytes, name: str):
    assert match(method, path).name == name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", b"/api/accounts"),
        ("POST", b"/api/keys"),
        ("GET", b"/backend-api/conversations"),
        ("GET", b"/v1/responses"),
        ("HEAD", b"/v1/responses"),
        ("DELETE", b"/v1/responses"),
        ("POST", b"/V1/responses"),
        ("POST", b"/v1/responses%2e"),
        ("POST", b"/v1/%2572esponses"),
        ("POST", b"/v1/responses\xff"),
        ("GET", b"/"),
    ],
)
def test_everything_else_is_not_found(method: str, path: bytes):
    with pytest.raises(RouteNotFound):
        match(method, path)


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/../api/accounts",
        b"/v1/%2e%2e/api/accounts",
        b"//v1/responses",
        b"/v1//responses",
        b"/v1\\responses",
        b"/v1%2Fresponses",
        b"/v1%5cresponses",
    ],
)
def test_a_path_with_two_meanings_is_refused(path: bytes):
    with pytest.raises(PathRefused):
        match("POST", path)


def test_a_socket_route_is_found_for_sockets_only():
    assert match("GET", b"/v1/responses", websocket=True).lane == "lanes/proxy_websocket"
    with pytest.raises(RouteNotFound):
        match("GET", b"/v1/models", websocket=True)


def test_no_row_leads_to_the_admin_api():
    paths = [path for route in ROUTES for path in route.paths if path.startswith("/api/")]

    assert all(path.startswith("/api/codex/") for path in paths)


def test_targets_differ_by_the_kind_of_account():
    route = match("POST", b"/v1/responses")

    assert route.target(AccountKind.CHATGPT) == "/codex/responses"
    assert route.target(AccountKind.API_KEY) == "/responses"
