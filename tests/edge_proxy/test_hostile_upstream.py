"""An upstream that answers what no upstream should: none of it reaches into the client's answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from admission_client.memory import MemoryAdmission
from tests.edge_proxy.running import RunningEdge

CODEX = "/backend-api/codex/responses"
STREAMED = {"model": "gpt-5.5", "input": [], "stream": True}
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


@asynccontextmanager
async def raw_upstream(answer: bytes) -> AsyncIterator[str]:
    """A server that answers every request with these bytes, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/backend-api"


HOSTILE = {
    "a bare carriage return": OK + b"x-note: a\rset-cookie: b=c\r\n\r\n",
    "a bare line feed": OK + b"x-note: a\nset-cookie: b=c\r\n\r\n",
    "a NUL": OK + b"x-note: a\0b\r\n\r\n",
    "a control character": OK + b"x-note: a\x07b\r\n\r\n",
    "a name that is none": OK + b"x note{}: a\r\n\r\n",
    "a folded line": OK + b"x-note: a\r\n set-cookie: b=c\r\n\r\n",
    "two lengths": OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "a head without end": OK + b"x-note: " + b"a" * 1_000_000,
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "nothing": b"",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_answer_is_an_upstream_error_or_passes_harmlessly(
    edge: RunningEdge, admission: MemoryAdmission, name: str
):
    async with raw_upstream(HOSTILE[name]) as url, edge.client() as client:
        admission.accounts[0] = replace(admission.accounts[0], base_url=url)
        answer = await client.post(CODEX, json=STREAMED)

    assert answer.status_code in {200, 502}, answer.text
    assert "set-cookie" not in answer.headers
    assert edge.idle
