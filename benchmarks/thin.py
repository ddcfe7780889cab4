"""The floor for a Python proxy: raw ASGI and aiohttp that only pass on. No product, just something to divide by.

`python -m benchmarks.thin <port> <upstream> <limit>`: HTTP and WebSocket, with at most `limit` requests at a time.
"""

import asyncio
import sys
from typing import Any

import aiohttp
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

_NOT_PASSED = {b"host", b"content-length", b"connection", b"upgrade"}


class Thin:
    """The ASGI application."""

    def __init__(self, upstream: str, limit: int) -> None:
        self._upstream = upstream
        self._left = limit
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Passes a request or a socket on."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        elif self._left == 0:
            await _answer(send, 429, [(b"content-length", b"4")], b"full")
        else:
            self._left -= 1
            try:
                await self._request(scope, receive, send)
            finally:
                self._left += 1

    async def _request(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        url = self._upstream + scope["path"]
        async with self._session.request(scope["method"], url, headers=_passed(scope), data=body) as response:
            headers = [(name, value) for name, value in response.raw_headers if name.lower() != b"transfer-encoding"]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            while chunk := await response.content.readany():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _socket(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        url = "ws" + self._upstream.removeprefix("http") + scope["path"]
        headers = [(name, value) for name, value in _passed(scope) if not name.startswith("sec-websocket")]
        async with connect(url, additional_headers=headers, compression=None) as upstream:
            await send({"type": "websocket.accept"})

            async def back() -> None:
                try:
                    async for frame in upstream:
                        await send({"type": "websocket.send", "text": frame})
                except ConnectionClosed:
                    return

            returning = asyncio.create_task(back())
            while (message := await receive())["type"] == "websocket.receive":
                await upstream.send(message["text"])
            returning.cancel()


async def _answer(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _passed(scope: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in scope["headers"] if name not in _NOT_PASSED]


if __name__ == "__main__":
    _, port, upstream, limit = sys.argv
    uvicorn.run(
        Thin(upstream, int(limit)),
        port=int(port),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
