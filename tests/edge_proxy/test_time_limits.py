"""Time limits and silence: each ends with its seats back and the client told."""

import asyncio

import pytest
from aiohttp import web

from admission_client.lease import AccountKind
from admission_client.memory import MemoryAdmission
from tests.edge_proxy.running import KEY, RunningEdge, accounts, running_edge, until
from tests.edge_proxy.scripted_upstream import RATE_LIMITS, TURN, ScriptedUpstream, created, event, silence, stream

CODEX = "/backend-api/codex/responses"
STREAMED = {"model": "gpt-5.5", "input": [], "stream": True}
QUICK = {"connect_timeout": 0.2, "headers_timeout": 0.2}


async def test_an_upstream_that_never_answers_is_504(admission: MemoryAdmission, upstream: ScriptedUpstream):
    upstream.script(silence())
    async with running_edge(admission, **QUICK) as edge, edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)
        assert edge.idle

    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_request_timeout")


async def test_silence_within_a_stream_ends_it_with_response_failed(
    admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(stream(created(), "hang"))
    async with running_edge(admission, silence_timeout=0.2, keepalive_interval=0.1) as edge, edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)
        assert edge.idle

    assert answer.content.startswith(event(created()))
    assert b"event: response.failed" in answer.content
    assert b"stream_idle_timeout" in answer.content


async def test_a_stream_has_a_longest_time(admission: MemoryAdmission, upstream: ScriptedUpstream):
    upstream.script(stream(created(), "hang"))
    async with running_edge(admission, stream_timeout=0.2, keepalive_interval=0.1) as edge, edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert b"upstream_request_timeout" in answer.content


@pytest.mark.parametrize(
    ("headers", "keepalive"),
    [
        ({"originator": "codex_exec"}, b'event: codex.keepalive\ndata: {"type":"codex.keepalive"}\n\n'),
        ({}, b": keepalive\n\n"),
    ],
)
async def test_silence_is_filled_in_the_dialect_that_the_client_understands(
    admission: MemoryAdmission, upstream: ScriptedUpstream, headers: dict[str, str], keepalive: bytes
):
    upstream.script(stream(created(), "hang", *TURN[1:]))
    received = b""
    async with (
        running_edge(admission, keepalive_interval=0.05) as edge,
        edge.client() as client,
        client.stream("POST", CODEX, json=STREAMED, headers=headers) as answer,
    ):
        async for chunk in answer.aiter_raw():
            received += chunk
            if received.endswith(keepalive * 2):
                upstream.release.set()

    assert received.startswith(event(created()) + keepalive * 2)
    assert received.replace(keepalive, b"") == b"".join(event(part) for part in TURN)


async def test_no_keepalive_falls_into_the_middle_of_an_event(admission: MemoryAdmission, upstream: ScriptedUpstream):
    whole = event(TURN[1])
    upstream.script(stream(created(), whole[:20], "hang", whole[20:], *TURN[2:]))
    received = b""
    async with (
        running_edge(admission, keepalive_interval=0.05) as edge,
        edge.client() as client,
        client.stream("POST", CODEX, json=STREAMED) as answer,
    ):
        asyncio.get_running_loop().call_later(0.3, upstream.release.set)
        async for chunk in answer.aiter_raw():
            received += chunk

    assert received == b"".join(event(part) for part in TURN)


async def test_silence_before_the_first_event_starts_the_answer_and_keeps_failover_possible(
    admission: MemoryAdmission, upstream: ScriptedUpstream
):
    admission.accounts = accounts(upstream.url, AccountKind.CHATGPT, AccountKind.CHATGPT)
    upstream.script(stream(RATE_LIMITS, "hang", "cut"), stream(*TURN))
    received = b""
    async with (
        running_edge(admission, keepalive_interval=0.05) as edge,
        edge.client() as client,
        client.stream("POST", CODEX, json=STREAMED) as answer,
    ):
        async for chunk in answer.aiter_raw():
            received += chunk
            upstream.release.set()

    assert received.replace(b": keepalive\n\n", b"") == b"".join(event(part) for part in TURN)


async def test_a_stream_without_an_end_is_given_one(admission: MemoryAdmission, upstream: ScriptedUpstream):
    upstream.script(stream(created(), TURN[1]))
    async with running_edge(admission) as edge, edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)
        repaired = edge.count("sluicegate_edge_repaired_streams_total")

    events = answer.content.split(b"\n\n")
    assert events[0] + b"\n\n" == event(created())
    assert b"event: response.failed" in answer.content
    assert b"stream_incomplete" in answer.content
    assert repaired == 1


async def test_a_cut_after_the_last_event_is_just_the_end(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(stream(*TURN, "cut"))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert answer.content == b"".join(event(part) for part in TURN)


async def test_comments_after_the_last_event_do_not_keep_a_stream_open(
    admission: MemoryAdmission, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
):
    async def comment_for_ever(request: web.Request, _upstream: ScriptedUpstream) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"".join(event(part) for part in TURN))
        while True:
            await asyncio.sleep(0.05)
            await response.write(b": still here\n\n")

    monkeypatch.setattr("edge_proxy.relay._AFTER_TERMINAL", 0.2)
    upstream.script(comment_for_ever)
    async with running_edge(admission) as edge, edge.client() as client, asyncio.timeout(5):
        answer = await client.post(CODEX, json=STREAMED)
        assert edge.idle

    assert answer.content.replace(b": still here\n\n", b"") == b"".join(event(part) for part in TURN)


@pytest.mark.parametrize("settings", [{"body_progress_timeout": 0.1}, {"body_timeout": 0.1}])
async def test_a_body_that_does_not_come_is_408(admission: MemoryAdmission, settings: dict[str, float]):
    async with running_edge(admission, **settings) as edge:
        reader, writer = await asyncio.open_connection(*edge.address)
        head = (
            f"POST {CODEX} HTTP/1.1\r\nhost: e\r\nauthorization: {KEY['authorization']}\r\ncontent-length: 9\r\n\r\n{{"
        )
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
        await until(lambda: edge.idle)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close\r\n" in answer


async def test_a_client_that_does_not_read_loses_its_stream(admission: MemoryAdmission, upstream: ScriptedUpstream):
    flood = {"type": "response.output_text.delta", "delta": "x" * 1_000_000}
    upstream.script(stream(created(), *[flood] * 64, "hang"))
    async with running_edge(admission, client_write_timeout=0.2) as edge:
        _, writer = await asyncio.open_connection(*edge.address, limit=1024)
        body = b'{"model":"m","input":[],"stream":true}'
        head = f"POST {CODEX} HTTP/1.1\r\nhost: e\r\nauthorization: Bearer x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await until(lambda: bool(upstream.seen))
        await until(lambda: edge.idle)
        writer.transport.abort()

    assert admission.reports
