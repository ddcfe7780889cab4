"""One HTTP exchange with a client: what came, whether the client is still there, and what went back.

Knows ASGI, nothing of turns. Every wait on the client has a deadline, and a client that leaves is noticed at once,
also while nothing is being sent to it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from edge_proxy.errors import BodyTimeout, ClientGone
from edge_proxy.headers import request_id_of
from edge_proxy.interruption import Interruption
from edge_proxy.patience import Patience


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. `headers` has names in lower case; of repeated ones the last."""

    method: str
    raw_path: bytes
    query: bytes
    raw_headers: list[tuple[bytes, bytes]]
    headers: dict[str, str]
    peer: str
    request_id: str

    @classmethod
    def of(cls, scope: dict[str, Any]) -> "Request":
        """Reads an ASGI scope, HTTP or WebSocket."""
        raw_headers = scope["headers"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw_headers}
        client = scope.get("client")
        return cls(
            method=scope.get("method", "GET"),
            raw_path=scope["raw_path"],
            query=scope["query_string"],
            raw_headers=raw_headers,
            headers=headers,
            peer=client[0] if client else "",
            request_id=request_id_of(headers.get("x-request-id", "")),
        )

    @property
    def user_agent(self) -> str:
        """The client's name for itself."""
        return self.headers.get("user-agent", "")

    @property
    def is_codex(self) -> bool:
        """Whether the client is a Codex, which understands `codex.…` events."""
        return self.headers.get("originator", "").lower().startswith("codex") or self.user_agent.lower().startswith(
            "codex"
        )


class Exchange(Interruption):
    """A request and the response to it. Used as a block, which ends with `ClientGone` when the client leaves."""

    def __init__(self, request: Request, receive: Any, send: Any, *, write_timeout: float) -> None:
        super().__init__()
        self.request = request
        self.status = 0
        """Status of the response; 0 until it has begun."""
        self.bytes_out = 0
        self.finished = False
        self._receive = receive
        self._send = send
        self._write_timeout = write_timeout
        self.patience = Patience()
        """Bounds whatever this request waits for."""
        self._watcher: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Whether a response has begun, so that its status can no longer change."""
        return self.status != 0

    async def chunks(self, *, timeout: float, progress_timeout: float) -> AsyncIterator[bytes]:
        """Yields the request body. Raises `ClientGone`, or `BodyTimeout` when it, or a next part of it, is late."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        more = True
        while more:
            try:
                left = min(deadline - loop.time(), progress_timeout)
                message = await self.patience.wait(self._receive(), within=left)
            except TimeoutError:
                raise BodyTimeout from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            more = message.get("more_body", False)
            if message.get("body"):
                yield message["body"]

    def watch(self) -> None:
        """Interrupts the block as soon as the client leaves. The body must have been read."""
        self._watcher = asyncio.get_running_loop().create_task(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.finished:  # the end of our own response looks like a disconnect as well
            self.interrupt(ClientGone())

    async def __aexit__(self, *raised: Any) -> None:
        """Stops watching."""
        if self._watcher is not None:
            self._watcher.cancel()
            # A cancelled task keeps its error, that the frames it went through, and those this exchange: a circle that
            # would keep all of a request until the garbage collector comes.
            self._watcher = None
        await super().__aexit__(*raised)

    async def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Sends a whole response."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.finish(body)

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Begins a response. The request id goes with every one."""
        self.status = status
        headers.append((b"x-request-id", self.request.request_id.encode("latin-1")))
        await self._deliver({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, chunk: bytes) -> None:
        """Sends a part of the body."""
        self.bytes_out += len(chunk)
        await self._deliver({"type": "http.response.body", "body": chunk, "more_body": True})

    async def finish(self, chunk: bytes = b"") -> None:
        """Sends the end of the body."""
        self.bytes_out += len(chunk)
        self.finished = True
        await self._deliver({"type": "http.response.body", "body": chunk, "more_body": False})

    def close(self) -> None:
        """Ends the deadlines. Call it when nothing will be sent any more."""
        self.patience.close()

    async def _deliver(self, message: dict[str, Any]) -> None:
        try:
            await self.patience.wait(self._send(message), within=self._write_timeout)
        except TimeoutError:
            raise ClientGone("The client has stopped reading.") from None
        except OSError:
            raise ClientGone from None
