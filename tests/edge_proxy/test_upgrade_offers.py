"""Clients that offer to go on in HTTP/2 (`curl --http2`) are served in HTTP/1.1, as if they had not offered."""

import asyncio

import pytest

from tests.edge_proxy.running import RunningEdge
from tests.edge_proxy.scripted_upstream import ScriptedUpstream

BODY = b'{"model":"m","input":[],"stream":true}'
HEAD = (
    b"POST /backend-api/codex/responses HTTP/1.1\r\nhost: e\r\nauthorization: Bearer x\r\n"
    b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQ\r\n"
)
LENGTH = b"content-length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
IN_CHUNKS = b"5\r\n" + BODY[:5] + b"\r\n%x\r\n" % len(BODY[5:]) + BODY[5:] + b"\r\n0\r\n\r\n"
PLAIN = b"GET /health/live HTTP/1.1\r\nhost: e\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD + LENGTH + BODY],
        [HEAD + LENGTH, BODY],
        [HEAD + LENGTH + BODY[:7], BODY[7:]],
        [HEAD[:50], HEAD[50:] + LENGTH + BODY],
        [HEAD + CHUNKED + IN_CHUNKS],
        [HEAD + CHUNKED, IN_CHUNKS[:4], IN_CHUNKS[4:]],
    ],
)
async def test_a_turn_that_offers_an_upgrade_arrives_whole_and_its_connection_goes_on(
    edge: RunningEdge, upstream: ScriptedUpstream, parts: list[bytes]
):
    reader, writer = await asyncio.open_connection(*edge.address)
    for part in [*parts, PLAIN]:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)
    answers = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b"response.completed" in answers
    assert answers.endswith(b'{"status":"ok"}')
    assert upstream.seen[0].body == BODY
    assert "http2-settings" not in upstream.seen[0].headers


@pytest.mark.parametrize("offers", [1, 500])
async def test_offers_without_a_body_are_answered(edge: RunningEdge, offers: int):
    reader, writer = await asyncio.open_connection(*edge.address)
    offer = b"GET /health/live HTTP/1.1\r\nhost: e\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    writer.write(offer * offers + PLAIN)
    answers = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert answers.count(b"HTTP/1.1 200 ") == offers + 1
