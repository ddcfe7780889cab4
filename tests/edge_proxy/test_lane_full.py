"""A full lane refuses before the body is read, and says who refused, why and for how long."""

import asyncio

import pytest

from admission_client.lease import Denial, DenialReason
from admission_client.memory import MemoryAdmission
from tests.edge_proxy.running import RunningEdge, running_edge, until
from tests.edge_proxy.scripted_upstream import TURN, ScriptedUpstream, document, scripted_upstream, stream
from tests.edge_proxy.test_socket_turns import open_socket

CODEX = "/backend-api/codex/responses"
STREAMED = {"model": "gpt-5.5", "input": [], "stream": True}


@pytest.fixture
def full_lane(admission: MemoryAdmission) -> MemoryAdmission:
    admission.set_limit("lanes/proxy_http", 1)
    admission.held["lanes/proxy_http"] = 1
    return admission


async def test_the_refusal_comes_before_the_body(edge: RunningEdge, full_lane: MemoryAdmission):
    reader, writer = await asyncio.open_connection(*edge.address)
    head = f"POST {CODEX} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer sk-sg-x\r\ncontent-length: 1000000\r\n\r\n"
    writer.write(head.encode())

    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"x-sluicegate-lane: proxy_http\r\n" in answer
    assert b"x-sluicegate-reason: lane_full\r\n" in answer


async def test_the_refusal_is_an_openai_envelope_with_a_whole_retry_after(
    edge: RunningEdge, full_lane: MemoryAdmission, upstream: ScriptedUpstream
):
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert answer.json()["error"]["code"] == "proxy_overloaded"
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert not upstream.seen


@pytest.mark.parametrize(
    ("agent", "status"),
    [("codex_exec/0.155.1 (Debian)", 503), ("codex_cli_rs/0.98.0", 503), ("codex_exec/0.169.0", 429), ("x/1.0", 429)],
)
async def test_an_old_codex_is_told_503_because_it_ends_its_turn_on_429(
    edge: RunningEdge, full_lane: MemoryAdmission, agent: str, status: int
):
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED, headers={"user-agent": agent})

    assert answer.status_code == status
    assert int(answer.headers["retry-after"]) >= 1


async def test_compact_is_admitted_while_http_is_full(edge: RunningEdge, full_lane: MemoryAdmission):
    headers = {"x-codex-turn-metadata": '{"request_kind":"compaction"}'}
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED, headers=headers)

    assert answer.status_code == 200
    assert ("lanes/proxy_compact",) in full_lane.asked


async def test_health_answers_with_every_lane_full(edge: RunningEdge, full_lane: MemoryAdmission):
    async with edge.client() as client:
        live, ready = await client.get("/health/live"), await client.get("/health/ready")

    assert (live.status_code, ready.status_code) == (200, 200)


async def test_a_seat_freed_by_a_disconnect_serves_the_next_request_at_once(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    admission.set_limit("lanes/proxy_http", 1)
    upstream.script(stream(TURN[0], "hang"), stream(*TURN))
    async with edge.client() as client:
        async with client.stream("POST", CODEX, json=STREAMED) as held:
            async for _ in held.aiter_raw():
                break
            refused = await client.post(CODEX, json=STREAMED)
        await until(lambda: edge.idle)
        served = await client.post(CODEX, json=STREAMED)

    assert (refused.status_code, served.status_code) == (429, 200)


@pytest.mark.parametrize(
    ("denial", "status", "code"),
    [
        (Denial(reason=DenialReason.STAGE_FULL, retry_after=3.2), 429, "global_admission_timeout"),
        (Denial(reason=DenialReason.ACCOUNT_STREAMS_FULL), 429, "account_stream_cap"),
        (Denial(reason=DenialReason.FAIR_SHARE), 429, "fair_share"),
        (Denial(reason=DenialReason.RECOVERING), 503, "admission_recovering"),
        (Denial(reason=DenialReason.NO_ACCOUNT), 503, "no_accounts"),
        (Denial(reason=DenialReason.MODEL_NOT_ALLOWED), 403, "model_not_allowed"),
        (Denial(reason=DenialReason.OWNER_GONE), 400, "previous_response_not_found"),
    ],
)
async def test_a_denial_of_work_keeps_its_status_and_code(
    edge: RunningEdge, admission: MemoryAdmission, denial: Denial, status: int, code: str
):
    admission.refuse_next("accounts/-/streams", denial)
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status in {429, 503})
    assert not admission.reports


async def test_a_pool_out_of_quota_says_when_it_comes_back_and_not_to_retry(
    edge: RunningEdge, admission: MemoryAdmission
):
    admission.refuse_next("accounts/-/streams", Denial(reason=DenialReason.QUOTA_EXHAUSTED, retry_after=3600.0))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    error = answer.json()["error"]
    assert answer.status_code == 429
    assert error["code"] == error["type"] == "usage_limit_reached"
    assert 3590 <= error["resets_in_seconds"] <= 3601
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


async def test_a_full_socket_lane_does_not_stop_http_and_conversely(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    admission.set_limit("lanes/proxy_websocket", 1)
    admission.held["lanes/proxy_websocket"] = 1
    async with edge.client() as client:
        over_http = await client.post(CODEX, json=STREAMED)
    admission.set_limit("lanes/proxy_http", 1)
    admission.held.update({"lanes/proxy_http": 1, "lanes/proxy_websocket": -1})
    async with open_socket(edge) as socket:
        await socket.ping()

    assert over_http.status_code == 200


async def test_usage_is_admitted_while_the_proxy_lanes_are_full(full_lane: MemoryAdmission):
    async with scripted_upstream() as control:
        control.script(document({"plan_type": "pro"}))
        async with running_edge(full_lane, control_url=control.url) as edge, edge.client() as client:
            answer = await client.get("/api/codex/usage")

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        (CODEX, "stages/response_create"),
        ("/v1/responses", "stages/response_create"),
        ("/v1/responses/compact", "stages/compact_response_create"),
    ],
)
async def test_a_full_stage_is_429_asks_no_upstream_and_blames_no_account(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream, path: str, stage: str
):
    admission.set_limit(stage, 1)
    admission.held[stage] = 1
    async with edge.client() as client:
        answer = await client.post(path, json=STREAMED)

    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "global_admission_timeout")
    assert int(answer.headers["retry-after"]) >= 1
    assert not upstream.seen
    assert not admission.reports
    assert set(admission.held) == {stage}
