"""A turn over HTTP: what goes up, what comes back, and what is told to admission."""

import json

import pytest

from admission_client.lease import AccountKind, Outcome, TokenUsage
from admission_client.memory import MemoryAdmission
from tests.edge_proxy.running import RunningEdge, accounts
from tests.edge_proxy.scripted_upstream import RATE_LIMITS, TURN, ScriptedUpstream, event, stream

CODEX = "/backend-api/codex/responses"
STREAMED = {"model": "gpt-5.5", "input": "hi", "stream": True}


@pytest.mark.parametrize(
    "path", [CODEX, f"{CODEX}/", "/v1/responses", "/v1/responses/", "/backend-api/codex/v1/responses"]
)
async def test_a_stream_passes_byte_for_byte(edge: RunningEdge, path: str):
    async with edge.client() as client:
        answer = await client.post(path, json=STREAMED)

    assert answer.status_code == 200
    assert answer.content == b"".join(event(part) for part in TURN)
    assert answer.headers["content-type"] == "text/event-stream"
    assert edge.idle


async def test_the_codex_route_sends_the_very_bytes_of_the_client(edge: RunningEdge, upstream: ScriptedUpstream):
    raw = b'{ "model":"gpt-5.5", "unknown": [1,  2], "stream":true,"input":[] }'
    async with edge.client() as client:
        await client.post(CODEX, content=raw, headers={"content-type": "application/json"})

    assert upstream.seen[0].body == raw
    assert upstream.seen[0].path == "/backend-api/codex/responses"


async def test_a_v1_body_becomes_what_the_backend_accepts(edge: RunningEdge, upstream: ScriptedUpstream):
    async with edge.client() as client:
        await client.post("/v1/responses", json={**STREAMED, "temperature": 0.2, "store": True})

    sent = upstream.seen[0].json
    assert sent["store"] is False
    assert sent["stream"] is True
    assert "temperature" not in sent
    assert sent["input"][0]["content"] == [{"type": "input_text", "text": "hi"}]


async def test_an_api_key_account_gets_the_v1_body_untouched(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    admission.accounts = accounts(upstream.url, AccountKind.API_KEY)
    raw = json.dumps({**STREAMED, "temperature": 0.2}).encode()
    async with edge.client() as client:
        await client.post("/v1/responses", content=raw)

    assert upstream.seen[0].body == raw
    assert upstream.seen[0].path == "/v1/responses"
    assert "chatgpt-account-id" not in upstream.seen[0].headers


async def test_credentials_are_the_accounts_and_never_the_clients(edge: RunningEdge, upstream: ScriptedUpstream):
    headers = {"cookie": "a=b", "x-forwarded-for": "1.2.3.4", "x-simulate": "hang", "originator": "codex_exec"}
    async with edge.client() as client:
        await client.post(CODEX, json=STREAMED, headers=headers)

    sent = upstream.seen[0].headers
    assert sent["authorization"] == "Bearer token-1"
    assert sent["chatgpt-account-id"] == "upstream-1"
    assert sent["accept-encoding"] == "identity"
    assert sent["originator"] == "codex_exec"
    assert not {"cookie", "x-forwarded-for", "x-simulate"} & sent.keys()


async def test_the_request_id_goes_up_and_comes_back(edge: RunningEdge, upstream: ScriptedUpstream):
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED, headers={"x-request-id": "mine-1"})

    assert answer.headers["x-request-id"] == "mine-1"
    assert upstream.seen[0].headers["x-request-id"] == "mine-1"


async def test_lane_comes_first_and_then_all_work_at_once(edge: RunningEdge, admission: MemoryAdmission):
    async with edge.client() as client:
        await client.post(CODEX, json=STREAMED)

    assert admission.asked == [
        ("lanes/proxy_http",),
        ("stages/response_create", "keys/-/streams", "accounts/-/streams", "accounts/-/response_creates"),
    ]


async def test_creation_seats_come_back_at_response_created_and_not_at_telemetry(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(stream(RATE_LIMITS, TURN[0], "hang", *TURN[1:]))
    async with edge.client() as client, client.stream("POST", CODEX, json=STREAMED) as answer:
        async for _ in answer.aiter_raw():
            break

        assert set(admission.held) == {"lanes/proxy_http", "keys/key_1/streams", "accounts/acc_1/streams"}


async def test_a_turn_is_reported_with_usage_limits_and_the_ids_it_owns(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(stream(RATE_LIMITS, *TURN, headers={"x-codex-turn-state": "state-1"}))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    (report,) = admission.reports
    assert answer.headers["x-codex-turn-state"] == "state-1"
    assert report.outcome is Outcome.SUCCEEDED
    assert report.usage == TokenUsage(input_tokens=11, cached_input_tokens=3, output_tokens=7, reasoning_tokens=2)
    assert report.windows[0].length == 18_000
    assert report.credits is not None
    assert report.owned_keys == ("response:resp_1", "turn:state-1")


async def test_an_unstreamed_v1_turn_is_folded_into_one_object(edge: RunningEdge, upstream: ScriptedUpstream):
    async with edge.client() as client:
        answer = await client.post("/v1/responses", json={"model": "gpt-5.5", "input": "hi"})

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["output"][0]["content"][0]["text"] == "hello"
    assert upstream.seen[0].json["stream"] is True
    assert edge.idle
