import asyncio
import contextlib
from typing import Any

import httpx
import pytest

from control_api.accounts.oauth import AuthServer
from control_api.answers import MAX_ANSWER, AnswerTooLarge, retry_after, whole_answer
from control_api.errors import AuthUnreachable


@contextlib.asynccontextmanager
async def serving(answer):
    """A server that reads the head of a request and leaves the answer to the test; yields its URL."""

    connections: set[Any] = set()

    async def serve(reader, writer):
        connections.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has left
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


async def drip(writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def flood(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * 65_536)
        await writer.drain()


async def short(writer):
    writer.write(b'HTTP/1.1 418 Teapot\r\ncontent-length: 7\r\n\r\n{"a":1}')
    await writer.drain()


@pytest.fixture
async def client():
    async with httpx.AsyncClient(trust_env=False) as opened:
        yield opened


async def test_an_answer_comes_whole_with_its_status(client):
    async with serving(short) as url:
        answer = await whole_answer(client, "GET", url, within=10)

    assert (answer.status_code, answer.json()) == (418, {"a": 1})


async def test_an_answer_that_drips_is_given_up_in_time(client):
    async with serving(drip) as url, asyncio.timeout(10):
        with pytest.raises(httpx.ReadTimeout):
            await whole_answer(client, "GET", url, within=0.2)


async def test_an_answer_without_an_end_is_not_read_to_its_end(client):
    async with serving(flood) as url, asyncio.timeout(10):
        with pytest.raises(AnswerTooLarge, match=str(MAX_ANSWER)):
            await whole_answer(client, "GET", url, within=9)


async def test_a_dripping_auth_server_is_one_that_did_not_answer(client, monkeypatch):
    monkeypatch.setattr("control_api.accounts.oauth.REFRESH_TIMEOUT", 0.2)

    async with serving(drip) as url, asyncio.timeout(10):
        with pytest.raises(AuthUnreachable) as failure:
            await AuthServer(client, url).refresh("token")

    assert failure.value.sent


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("7", 7), ("0", 1), (" 30 ", 30), ("601", 600), ("9" * 5_000, 600), ("-1", None), ("1.5", None), ("soon", None)],
)
def test_only_whole_seconds_say_when_to_come_back_and_never_too_many(told, seconds):
    assert retry_after(httpx.Response(503, headers={"retry-after": told})) == seconds


async def test_an_answer_keeps_the_time_to_come_back():
    async def busy(writer):
        writer.write(b"HTTP/1.1 503 Busy\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with serving(busy) as url, httpx.AsyncClient() as client:
        answer = await whole_answer(client, "GET", url, within=5)

    assert retry_after(answer) == 9
