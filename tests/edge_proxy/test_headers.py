"""Which headers pass."""

import pytest

from admission_client.lease import AccountKind, GrantedAccount
from edge_proxy.headers import (
    _client_name,
    _upstream_name,
    client_headers,
    request_id_of,
    socket_headers,
    upstream_headers,
)

ACCOUNT = GrantedAccount(
    account_id="a", kind=AccountKind.CHATGPT, base_url="", upstream_account_id="up-1", access_token="t"
)


def passed(received: list[tuple[bytes, bytes]], account: GrantedAccount = ACCOUNT, **options) -> dict[str, str]:
    return dict(upstream_headers(received, account, request_id="r", **options))


@pytest.mark.parametrize(
    "name",
    [
        "authorization", "chatgpt-account-id", "cookie", "connection", "keep-alive", "te", "trailer", "upgrade",
        "transfer-encoding", "host", "content-length", "forwarded", "x-forwarded-for", "x-real-ip", "true-client-ip",
        "cf-connecting-ip", "x-sluicegate-key", "x-simulate", "x-openai-internal-codex-responses-lite",
        "proxy-authorization", "openai-organization", "x-api-key",
    ],
)  # fmt: skip
def test_what_is_not_the_upstreams_business_stays_here(name: str):
    assert passed([(name.encode(), b"secret")]).get(name) != "secret"


def test_headers_that_connection_names_stay_here():
    assert "x-hop" not in passed([(b"connection", b"close, X-Hop"), (b"x-hop", b"1")])


def test_the_clients_metadata_goes_on():
    metadata = [
        (b"originator", b"codex_exec"),
        (b"session-id", b"s"),
        (b"x-codex-window-id", b"w:0"),
        (b"version", b"1"),
    ]

    assert {name.decode(): value.decode() for name, value in metadata}.items() <= passed(metadata).items()


@pytest.mark.parametrize("made_up", ["email_abc", "local_abc", ""])
def test_an_account_id_that_the_upstream_does_not_know_is_not_sent(made_up: str):
    account = GrantedAccount(account_id="a", kind=AccountKind.CHATGPT, base_url="", upstream_account_id=made_up)

    assert "chatgpt-account-id" not in passed([], account)


def test_a_turn_state_is_dropped_when_its_owner_moved():
    moved = GrantedAccount(account_id="a", kind=AccountKind.CHATGPT, base_url="", owner_moved=True)
    received = [(b"x-codex-turn-state", b"s")]

    assert "x-codex-turn-state" in passed(received)
    assert "x-codex-turn-state" not in passed(received, moved)


def test_responses_lite_is_said_by_the_body_alone():
    assert passed([], responses_lite=True)["x-openai-internal-codex-responses-lite"] == "true"


def test_a_socket_asks_for_the_socket_beta_without_the_one_it_excludes():
    headers = dict(socket_headers([("openai-beta", "responses=experimental, other=1"), ("accept", "x")]))

    assert headers == {"openai-beta": "other=1, responses_websockets=2026-02-06"}


def test_an_answer_loses_what_is_not_the_clients_business():
    received = [
        (b"Set-Cookie", b"a=b"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Content-Length", b"5"),
        (b"cf-ray", b"1"),
        (b"X-Request-Id", b"up"),
        (b"x-codex-turn-state", b"s"),
        (b"openai-processing-ms", b"5"),
    ]

    assert client_headers(received) == [
        (b"x-upstream-request-id", b"up"),
        (b"x-codex-turn-state", b"s"),
        (b"openai-processing-ms", b"5"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "ChatGPT-Account-Id", "OpenAI-Organization",
        "OpenAI-Project", "Proxy-Authorization", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "Via", "X-Real-IP",
        "True-Client-IP",
    ],
)  # fmt: skip
def test_what_an_upstream_echoes_of_its_request_stays_here(name: str):
    assert client_headers([(name.encode(), b"Bearer secret")]) == []


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "ä", "a\x00"])
def test_a_request_id_that_cannot_be_logged_is_replaced(sent: str):
    assert request_id_of(sent).startswith("req_")
    assert request_id_of("mine") == "mine"


def test_names_that_are_long_pass_and_are_not_remembered():
    upstream_kept, client_kept = _upstream_name.cache_info().currsize, _client_name.cache_info().currsize
    name = b"x-" + b"n" * 10_000
    there = passed([(name, b"1")])
    back = client_headers([(name, b"1"), (b"cf-" + b"n" * 10_000, b"2")])

    assert there[name.decode()] == "1"
    assert back == [(name, b"1")]
    assert (_upstream_name.cache_info().currsize, _client_name.cache_info().currsize) == (upstream_kept, client_kept)
