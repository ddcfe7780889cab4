"""Everything but turns: catalogue, compaction, plain routes, usage, the accounts check, and who may ask."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from admission_client.lease import AccountKind, DenialReason
from admission_client.memory import MemoryAdmission
from edge_proxy.app import EdgeApp
from edge_proxy.settings import EdgeSettings
from tests.edge_proxy.running import RunningEdge, accounts, running_edge, until
from tests.edge_proxy.scripted_upstream import (
    TURN,
    ScriptedUpstream,
    completed,
    created,
    document,
    refusal,
    scripted_upstream,
    stream,
)
from tests.edge_proxy.test_auth import JWT

CODEX_CATALOGUE = {"models": [{"slug": "gpt-5.5", "display_name": "GPT", "new_key": 1}]}
OPENAI_CATALOGUE = {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]}
COMPACTION = {"type": "compaction", "id": "cmp_1", "encrypted_content": "opaque"}


@pytest.fixture
def api_key_account(admission: MemoryAdmission, upstream: ScriptedUpstream) -> None:
    admission.accounts = accounts(upstream.url, AccountKind.API_KEY)


@pytest.fixture
async def control() -> AsyncIterator[ScriptedUpstream]:
    async with scripted_upstream() as running:
        window = {"used_percent": 12, "limit_window_seconds": 18000, "reset_after_seconds": 1, "reset_at": 99}
        rate_limit = {"primary_window": window, "secondary_window": None}
        pool_credits = {"has_credits": True, "unlimited": False, "balance": "3"}
        running.script(document({"plan_type": "pro", "rate_limit": rate_limit, "credits": pool_credits}))
        yield running


# --- Models.


@pytest.mark.parametrize(
    ("path", "for_codex"),
    [
        ("/backend-api/codex/models?client_version=0.169.0", True),
        ("/v1/models?client_version=0.169.0", True),
        ("/v1/models", False),
    ],
)
async def test_the_catalogue_comes_in_the_askers_shape(
    edge: RunningEdge, upstream: ScriptedUpstream, path: str, for_codex: bool
):
    upstream.script(document(CODEX_CATALOGUE, ETag='"v1"'))
    async with edge.client() as client:
        answer = await client.get(path)

    assert [item["id"] for item in answer.json()["data"]] == ["gpt-5.5"]
    assert answer.json().get("models") == (CODEX_CATALOGUE["models"] if for_codex else None)
    assert answer.headers["etag"] == '"v1"'
    assert upstream.seen[0].path == "/backend-api/codex/models?client_version=0.169.0"


async def test_an_openai_catalogue_is_shown_to_codex_as_well(
    edge: RunningEdge, upstream: ScriptedUpstream, api_key_account: None
):
    upstream.script(document(OPENAI_CATALOGUE))
    async with edge.client() as client:
        answer = await client.get("/backend-api/codex/models?client_version=1.0.0")

    assert answer.json() == {"models": [], **OPENAI_CATALOGUE}


# --- Compaction.


@pytest.mark.parametrize("path", ["/backend-api/codex/responses/compact", "/v1/responses/compact/"])
async def test_a_compaction_is_a_turn_upstream_and_one_object_for_the_client(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream, path: str
):
    item = {"type": "response.output_item.done", "item": {**COMPACTION, "type": "compaction_summary"}}
    upstream.script(stream(created(), item, completed()))
    async with edge.client() as client:
        answer = await client.post(path, json={"model": "gpt-5.5", "input": [{"type": "message"}]})

    assert answer.json()["object"] == "response.compaction"
    assert answer.json()["output"] == [COMPACTION]
    assert answer.json()["usage"]["total_tokens"] == 18
    assert upstream.seen[0].path == "/backend-api/codex/responses"
    assert upstream.seen[0].json["input"][-1] == {"type": "compaction_trigger"}
    assert admission.asked[0] == ("lanes/proxy_compact",)
    assert admission.asked[1][0] == "stages/compact_response_create"


async def test_a_compaction_without_its_one_item_is_an_error(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(stream(*TURN))
    async with edge.client() as client:
        answer = await client.post("/backend-api/codex/responses/compact", json={"model": "m", "input": []})

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")


async def test_the_trigger_inside_responses_changes_the_stage_and_keeps_the_stream(
    edge: RunningEdge, admission: MemoryAdmission
):
    body = {"model": "m", "stream": True, "input": [{"type": "message"}, {"type": "compaction_trigger"}]}
    headers = {"x-codex-turn-metadata": json.dumps({"request_kind": "compaction"})}
    async with edge.client() as client:
        answer = await client.post("/backend-api/codex/responses", json=body, headers=headers)

    assert answer.headers["content-type"] == "text/event-stream"
    assert admission.asked[0] == ("lanes/proxy_compact",)
    assert admission.asked[1][0] == "stages/compact_response_create"


# --- Plain routes.


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_plain_routes_pass_to_an_api_key_account_untouched(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream, api_key_account: None, path: str
):
    answered = {"id": "x", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    upstream.script(document(answered))
    async with edge.client() as client:
        answer = await client.post(path, json={"model": "m", "seed": 1})

    assert answer.json() == answered
    assert (upstream.seen[0].path, upstream.seen[0].json) == (path, {"model": "m", "seed": 1})
    assert admission.reports[0].usage is not None
    assert admission.reports[0].usage.input_tokens == 3


async def test_a_streamed_chat_passes_byte_for_byte(
    edge: RunningEdge, upstream: ScriptedUpstream, api_key_account: None
):
    parts = [b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n"]
    upstream.script(stream(*parts))
    async with edge.client() as client:
        answer = await client.post("/v1/chat/completions", json={"model": "m", "stream": True})

    assert answer.content == b"".join(parts)
    assert edge.idle


async def test_plain_routes_ask_for_an_api_key_account_or_are_404(edge: RunningEdge, admission: MemoryAdmission):
    admission.refuse_next("accounts/-/streams", DenialReason.UNSUPPORTED_BY_ACCOUNT)
    async with edge.client() as client:
        answer = await client.post("/v1/embeddings", json={"model": "m"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported_by_account")


# --- Usage.


@pytest.mark.parametrize("path", ["/api/codex/usage", "/backend-api/wham/usage", "/v1/usage"])
async def test_usage_is_answered_by_the_control_api_on_the_dashboard_lane(
    admission: MemoryAdmission, control: ScriptedUpstream, path: str
):
    async with running_edge(admission, control_url=control.url) as edge, edge.client() as client:
        answer = await client.get(path)

    assert answer.json()["plan_type"] == "pro"
    assert admission.asked == [("lanes/dashboard",)]
    assert control.seen[0].path == path
    assert len(bytes.fromhex(control.seen[0].headers["x-sluicegate-key-sha256"])) == 32
    assert "authorization" not in control.seen[0].headers


async def test_usage_leaves_in_the_shape_that_the_control_api_gives_its_path(
    admission: MemoryAdmission, control: ScriptedUpstream
):
    v1 = {"request_count": 3, "total_tokens": 70, "limits": [], "account_pool_usage": {"primary": 12.0}}
    codex = {"plan_type": "pro", "rate_limit": {"allowed": True}}
    shapes = {"/v1/usage": v1, "/api/codex/usage": codex, "/backend-api/wham/usage": codex}

    async def by_path(request, at):
        return await document(shapes[request.path])(request, at)

    control.script(by_path)
    async with running_edge(admission, control_url=control.url) as edge, edge.client() as client:
        told = {path: (await client.get(path)).json() for path in shapes}

    assert told == shapes


async def test_usage_is_503_while_the_control_api_is_away_and_404_without_one(
    edge: RunningEdge, admission: MemoryAdmission, free_port: int
):
    async with (
        running_edge(admission, control_url=f"http://127.0.0.1:{free_port}") as lonely,
        lonely.client() as client,
    ):
        away = await client.get("/v1/usage")
    async with edge.client() as client:
        without = await client.get("/v1/usage")

    assert (away.status_code, away.json()["error"]["code"]) == (503, "control_unavailable")
    assert without.status_code == 404


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_control_api_is_told_as_one_that_is_away_with_a_time_to_come_back(
    admission: MemoryAdmission, control: ScriptedUpstream, status: int
):
    control.script(refusal(status, {"code": "busy"}))
    async with running_edge(admission, control_url=control.url) as edge, edge.client() as client:
        answer = await client.get("/v1/usage")

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "control_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_streams_tell_the_pools_limits_once_they_are_known(
    admission: MemoryAdmission, upstream: ScriptedUpstream, control: ScriptedUpstream
):
    upstream.script(stream(*TURN, headers={"x-codex-primary-used-percent": "77"}))
    body = {"model": "m", "stream": True, "input": []}
    told = []
    async with running_edge(admission, control_url=control.url) as edge, edge.client() as client:
        for _ in range(2):
            answer = await client.post("/backend-api/codex/responses", json=body)
            told.append(answer.headers["x-codex-primary-used-percent"])
            await until(lambda: len(control.seen) == 1)
            await until(lambda: bool(edge.app._pool._known) and not edge.app._pool._fetching)

    assert told == ["77", "12"]
    assert answer.headers["x-codex-primary-window-minutes"] == "300"
    assert answer.headers["x-codex-credits-has-credits"] == "true"


# --- Identity.


@pytest.mark.parametrize("path", ["/backend-api/wham/accounts/check", "/api/codex/accounts/check"])
async def test_the_accounts_check_is_answered_from_the_clients_own_identity(
    edge: RunningEdge, admission: MemoryAdmission, path: str
):
    async with edge.client() as client:
        answer = await client.get(path, headers={"authorization": f"Bearer {JWT}"})

    (account,) = answer.json()["accounts"]
    assert account["id"] == "acct-7"
    assert account["workspace_backend_origin"] == "https://chatgpt.com"
    assert account["account_routing_override"] == "NO_CONSTRAINT"
    assert not admission.asked


async def test_a_sign_in_without_our_key_is_401_before_any_seat(edge: RunningEdge, admission: MemoryAdmission):
    async with edge.client() as client:
        answer = await client.post("/v1/responses", json={}, headers={"authorization": f"Bearer {JWT}"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "client_key_missing")
    assert "x-sluicegate-key" in answer.json()["error"]["message"]
    assert not admission.asked


async def test_chatgpt_mode_sends_the_accounts_sign_in_and_not_the_clients(
    edge: RunningEdge, upstream: ScriptedUpstream
):
    headers = {"authorization": f"Bearer {JWT}", "x-sluicegate-key": "sk-sg-x", "chatgpt-account-id": "acct-7"}
    async with edge.client() as client:
        await client.post("/backend-api/codex/responses", json={"model": "m", "stream": True}, headers=headers)

    sent = upstream.seen[0].headers
    assert (sent["authorization"], sent["chatgpt-account-id"]) == ("Bearer token-1", "upstream-1")
    assert "x-sluicegate-key" not in sent


async def test_an_unknown_key_is_401_and_takes_no_seat(upstream: ScriptedUpstream):
    admission = MemoryAdmission(accounts=accounts(upstream.url, AccountKind.CHATGPT), keys={})
    async with running_edge(admission) as edge, edge.client() as client:
        answer = await client.post("/v1/responses", json={})

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert not admission.held


@pytest.mark.parametrize("path", ["/api/accounts", "/backend-api/conversations", "/metrics", "/"])
async def test_what_is_not_on_the_list_is_a_local_404_without_a_seat(
    edge: RunningEdge, admission: MemoryAdmission, path: str
):
    async with edge.client() as client:
        answer = await client.get(path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert not admission.asked


# --- Health and drain.


async def test_ready_stays_after_the_admission_server_was_there_once(upstream: ScriptedUpstream):
    admission = MemoryAdmission()
    admission.ready = False
    async with running_edge(admission) as edge, edge.client() as client:
        before = await client.get("/health/ready")
        admission.ready = True
        during = await client.get("/health/ready")
        admission.ready = False
        after = await client.get("/health/ready")

    assert [answer.status_code for answer in (before, during, after)] == [503, 200, 200]
    assert int(before.headers["retry-after"]) >= 1


async def test_an_edge_that_has_served_is_ready_in_an_outage_though_nobody_had_asked(
    edge: RunningEdge, admission: MemoryAdmission
):
    async with edge.client() as client:
        await client.post("/backend-api/codex/responses", json={"model": "m", "stream": True, "input": []})
        admission.ready = False
        ready = await client.get("/health/ready")

    assert ready.status_code == 200


async def test_an_edge_that_was_superseded_is_not_ready_any_more(admission: MemoryAdmission):
    over: list[bool] = []
    registry = CollectorRegistry()
    async with EdgeApp(EdgeSettings(), admission, registry, is_over=lambda: bool(over)) as app:
        before = app.ready
        over.append(True)
        after = app.ready

    assert (before, after) == (True, False)


async def test_drain_lets_a_stream_finish_and_refuses_what_is_new(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(stream(created(), "hang", *TURN[1:]))
    body = {"model": "m", "stream": True, "input": []}
    async with edge.client() as client:
        async with client.stream("POST", "/backend-api/codex/responses", json=body) as running:
            chunks = running.aiter_raw()
            await anext(chunks)
            draining = asyncio.create_task(edge.app.drain.run(5.0))
            await until(edge.app.drain.begun.is_set)
            refused = await client.post("/backend-api/codex/responses", json=body)
            ready = await client.get("/health/ready")
            live = await client.get("/health/live")
            upstream.release.set()
            rest = b"".join([chunk async for chunk in chunks])
        ended_early = await draining

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "edge_draining")
    assert int(refused.headers["retry-after"]) >= 1
    assert (ready.status_code, live.status_code) == (503, 200)
    assert b"response.completed" in rest
    assert ended_early == 0


async def test_a_stream_that_outlasts_the_drain_gets_response_failed(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(stream(created(), "hang"))
    body = {"model": "m", "stream": True, "input": []}
    async with edge.client() as client, client.stream("POST", "/backend-api/codex/responses", json=body) as running:
        chunks = running.aiter_raw()
        await anext(chunks)
        ended_early = await edge.app.drain.run(0.05)
        rest = b"".join([chunk async for chunk in chunks])

    assert b"event: response.failed" in rest
    assert b"edge_draining" in rest
    assert ended_early == 1


async def test_an_upstream_redirect_is_not_followed(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(refusal(302, None, location="http://127.0.0.1:9/"))
    async with edge.client() as client:
        answer = await client.post("/backend-api/codex/responses", json={"model": "m", "stream": True})

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
