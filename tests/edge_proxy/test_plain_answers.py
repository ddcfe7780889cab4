"""Answers that pass as they come: chat completions, embeddings, and whole answers to turns, from API key accounts."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from admission_client.lease import AccountKind
from admission_client.memory import MemoryAdmission
from tests.edge_proxy.running import RunningEdge, accounts, running_edge
from tests.edge_proxy.scripted_upstream import Answer, ScriptedUpstream, document, refusal, stream

CHAT = "/v1/chat/completions"
ASKED = {"model": "m", "messages": []}
STREAMED = {**ASKED, "stream": True}
WHOLE = {"id": "x", "choices": []}
CHUNK = b'data: {"choices":[]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def admission(upstream: ScriptedUpstream) -> MemoryAdmission:
    return MemoryAdmission(accounts=accounts(upstream.url, AccountKind.API_KEY, AccountKind.API_KEY))


def cut_json() -> Answer:
    """Announces more than it sends, and hangs up."""

    async def answer(request: web.Request, _upstream: ScriptedUpstream) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "100"})
        await response.prepare(request)
        await response.write(b'{"id":')
        assert request.transport is not None
        request.transport.abort()
        return response

    return answer


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/responses"])
async def test_an_answer_that_was_cut_is_asked_for_again_with_the_same_body(
    edge: RunningEdge, upstream: ScriptedUpstream, path: str
):
    upstream.script(cut_json(), document(WHOLE))
    async with edge.client() as client:
        answer = await client.post(path, json=ASKED)

    assert answer.json() == WHOLE
    first, second = upstream.seen
    assert first.body == second.body != b""
    assert edge.idle


async def test_a_stream_that_was_cut_before_its_first_chunk_is_asked_for_again_with_the_same_body(
    edge: RunningEdge, upstream: ScriptedUpstream
):
    upstream.script(stream("cut"), stream(CHUNK, DONE))
    async with edge.client() as client:
        answer = await client.post(CHAT, json=STREAMED)

    assert answer.content == CHUNK + DONE
    assert [seen.json for seen in upstream.seen] == [STREAMED, STREAMED]


async def test_a_chat_that_was_cut_midway_ends_with_an_error_that_its_reader_understands(
    edge: RunningEdge, upstream: ScriptedUpstream
):
    upstream.script(stream(CHUNK, "cut"))
    async with edge.client() as client:
        answer = await client.post(CHAT, json=STREAMED)

    assert answer.content.startswith(CHUNK)
    assert b"event:" not in answer.content
    assert b'data: {"error":{' in answer.content
    assert b"stream_incomplete" in answer.content


async def test_a_chats_silence_is_filled_between_events_only(admission: MemoryAdmission, upstream: ScriptedUpstream):
    upstream.script(stream(CHUNK[:5], "hang", CHUNK[5:], DONE))
    received = b""
    async with (
        running_edge(admission, keepalive_interval=0.05) as edge,
        edge.client() as client,
        client.stream("POST", CHAT, json=STREAMED) as answer,
    ):
        asyncio.get_running_loop().call_later(0.3, upstream.release.set)
        async for chunk in answer.aiter_raw():
            received += chunk

    assert received == CHUNK + DONE


@pytest.mark.parametrize("first", [[], [CHUNK]])
async def test_a_chats_silence_is_filled_before_and_after_events(
    admission: MemoryAdmission, upstream: ScriptedUpstream, first: list[bytes]
):
    upstream.script(stream(*first, "hang", DONE))
    received = b""
    async with (
        running_edge(admission, keepalive_interval=0.05) as edge,
        edge.client() as client,
        client.stream("POST", CHAT, json=STREAMED) as answer,
    ):
        async for chunk in answer.aiter_raw():
            received += chunk
            if received.endswith(b": keepalive\n\n" * 2):
                upstream.release.set()

    assert received.replace(b": keepalive\n\n", b"") == b"".join(first) + DONE


@pytest.mark.parametrize(
    ("limit", "code"),
    [({"stream_timeout": 0.2}, b"upstream_request_timeout"), ({"silence_timeout": 0.2}, b"stream_idle_timeout")],
)
async def test_a_chat_has_a_longest_time_and_a_longest_silence(
    admission: MemoryAdmission, upstream: ScriptedUpstream, limit: dict[str, Any], code: bytes
):
    upstream.script(stream(CHUNK, "hang"))
    async with running_edge(admission, keepalive_interval=0.1, **limit) as edge, edge.client() as client:
        answer = await client.post(CHAT, json=STREAMED)
        assert edge.idle

    assert code in answer.content


async def test_a_whole_answer_cannot_follow_a_stream_that_has_begun(
    admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(stream("hang", "cut"), document(WHOLE))
    received = b""
    async with (
        running_edge(admission, keepalive_interval=0.05) as edge,
        edge.client() as client,
        client.stream("POST", CHAT, json=STREAMED) as answer,
    ):
        async for chunk in answer.aiter_raw():
            received += chunk
            upstream.release.set()

    assert b'data: {"error":{' in received
    assert edge.idle


@pytest.mark.parametrize(("told", "shown"), [(407, 502), (600, 502), (700, 502), (999, 502), (451, 451), (599, 599)])
async def test_a_status_that_no_client_should_see_is_a_bad_gateway(
    edge: RunningEdge, upstream: ScriptedUpstream, told: int, shown: int
):
    upstream.script(refusal(told, {"code": "x", "message": "y"}))
    async with edge.client() as client:
        answer = await client.post(CHAT, json=ASKED)

    assert answer.status_code == shown
