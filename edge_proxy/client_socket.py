"""The client's end of a WebSocket: ASGI below, frames above. Every wait on a client that does not read has an end."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import orjson

from edge_proxy.errors import ClientGone, Refusal
from edge_proxy.exchange import Request
from edge_proxy.patience import Patience

_LAST_LOOK = 1.0


class ClientSocket:
    """One socket of a client."""

    def __init__(self, request: Request, receive: Any, send: Any, *, write_timeout: float) -> None:
        self.request = request
        self.bytes_in = 0
        self.bytes_out = 0
        self.patience = Patience()
        """Bounds whatever the tasks of this socket wait for. Close it when the socket has ended."""
        self._receive = receive
        self._send = send
        self._write_timeout = write_timeout

    async def accept(self) -> None:
        """Completes the handshake."""
        identity = (b"x-request-id", self.request.request_id.encode("latin-1"))
        await self._deliver({"type": "websocket.accept", "headers": [identity]})

    async def refuse(self, refusal: Refusal) -> None:
        """Answers the handshake with a real HTTP response: a bare close would look like a 403 to clients."""
        body = refusal.envelope()
        headers = [
            *refusal.headers(),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.request.request_id.encode("latin-1")),
        ]
        await self._deliver({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
        await self._deliver({"type": "websocket.http.response.body", "body": body})
        # Uvicorn takes a handler that returns before the connection is gone for one that forgot to answer, and logs an
        # error: the first message says that the answer was sent, the second that the connection is gone.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_LOOK):
                await self._receive()
                await self._receive()

    async def frame(self) -> str | None:
        """Returns the next frame; None stands for a binary one. Raises `ClientGone` when the socket has ended."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            raise ClientGone
        text: str | None = message.get("text")
        self.bytes_in += len(text or message.get("bytes") or b"")
        return text

    async def send(self, text: str) -> None:
        """Sends a frame as it is. Raises `ClientGone`."""
        self.bytes_out += len(text)
        await self._deliver({"type": "websocket.send", "text": text})

    async def tell(self, document: Mapping[str, Any], stream_id: str = "") -> None:
        """Sends an object as a frame, addressed to a line where one is named."""
        addressed = {**document, "stream_id": stream_id} if stream_id else document
        await self.send(orjson.dumps(addressed).decode())

    async def close(self, code: int, reason: str) -> None:
        """Closes the socket."""
        await self._deliver({"type": "websocket.close", "code": code, "reason": reason})

    async def _deliver(self, message: dict[str, Any]) -> None:
        try:
            await self.patience.wait(self._send(message), within=self._write_timeout)
        except TimeoutError:
            raise ClientGone("The client has stopped reading.") from None
        except (OSError, RuntimeError) as error:  # uvicorn: gone, or closed already
            raise ClientGone from error
