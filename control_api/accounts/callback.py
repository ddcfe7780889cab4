"""A small listener for the browser's way back from a login: `GET /auth/callback?code=…&state=…` on this host.

It listens only while a login needs it. A listener that stays behind would swallow another program's login.
"""

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

import structlog

log = structlog.get_logger(__name__)

CALLBACK_PATH = "/auth/callback"
_READ_TIMEOUT = 5.0
_MAX_HEAD = 16 * 1024

OnCallback = Callable[[str], Awaitable[str]]
"""Takes the query of the callback and returns a sentence for the person at the browser."""


class CallbackListener:
    """Listens on loopback, on the one port that the auth server redirects to."""

    def __init__(self, port: int, on_callback: OnCallback) -> None:
        self._port = port
        self._on_callback = on_callback
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port in use; the one asked for while nothing listens."""
        if self._server is None or not self._server.sockets:
            return self._port
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> bool:
        """Listens. Returns False when the port is taken: the operator pastes the callback URL then."""
        if self._server is not None:
            return True
        try:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=_MAX_HEAD)
        except OSError as error:
            log.info("no listener for the login's callback", port=self._port, reason=str(error))
            return False
        return True

    async def stop(self) -> None:
        """Frees the port."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
            status, text = await self._answer(head)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            status, text = 400, "This is not a callback of a login."
        body = f"{text}\n".encode()
        writer.write(_head(status, len(body)) + body)
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError):
            writer.transport.abort()

    async def _answer(self, head: bytes) -> tuple[int, str]:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        try:
            target = urlsplit(rest.partition(" ")[0])
        except ValueError:
            return 400, "This is not a callback of a login."
        if method != "GET" or target.path != CALLBACK_PATH:
            return 400, "This is not a callback of a login."
        return 200, await self._on_callback(target.query)


def _head(status: int, length: int) -> bytes:
    lines = (
        f"HTTP/1.1 {status} {'OK' if status == 200 else 'Bad Request'}",
        "content-type: text/plain; charset=utf-8",
        f"content-length: {length}",
        "connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def callback_values(query: str) -> tuple[str, str, str]:
    """Returns code, state and error of a callback's query."""
    values = parse_qs(query)
    return (
        values.get("code", [""])[0],
        values.get("state", [""])[0],
        values.get("error_description", values.get("error", [""]))[0],
    )
