"""An HTTP/1.1 client that does the least a client can do, so that what is measured is not the client."""

import asyncio
import time
from dataclasses import dataclass
from typing import Self

_END_OF_STREAM = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came, and when: seconds since the request was written."""

    status: int
    body: bytes
    first_byte: float
    total: float


class Connection(asyncio.Protocol):
    """One connection, with one request at a time. Opens itself again when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._length = -1
        self._head_end = -1
        self._wrote_at = 0.0
        self._first_at = 0.0
        self._answered: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Sends a request and returns its answer. Raises `ConnectionError` when the connection ends first."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            self._transport, _ = await loop.create_connection(self._itself, "127.0.0.1", self._port)
        self._came.clear()
        self._head_end = self._length = -1
        self._answered = loop.create_future()
        self._wrote_at = time.perf_counter()
        self._transport.write(request)
        return await self._answered

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()

    def _itself(self) -> Self:
        return self

    def data_received(self, data: bytes) -> None:
        """Takes in a part of an answer."""
        if not self._came:
            self._first_at = time.perf_counter()
        self._came += data
        if self._head_end < 0:
            self._read_head()
        if self._head_end >= 0 and self._complete() and self._answered is not None and not self._answered.done():
            now = time.perf_counter()
            self._answered.set_result(
                Answer(
                    int(self._came[9:12]),
                    bytes(self._came[self._head_end :]),
                    self._first_at - self._wrote_at,
                    now - self._wrote_at,
                )
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells whoever waits."""
        self._transport = None
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionError("the server closed the connection"))

    def _read_head(self) -> None:
        end = self._came.find(b"\r\n\r\n")
        if end < 0:
            return
        self._head_end = end + 4
        head = bytes(self._came[:end]).lower()
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            self._length = int(head[at + 17 :].split(b"\r\n", 1)[0])

    def _complete(self) -> bool:
        if self._length >= 0:
            return len(self._came) - self._head_end >= self._length
        return self._came.endswith(_END_OF_STREAM)


def post(path: str, headers: dict[str, str], body: bytes) -> bytes:
    """Returns a request as it goes over the wire."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"POST {path} HTTP/1.1", "host: benchmark", *lines, f"content-length: {len(body)}"])
    return head.encode() + b"\r\n\r\n" + body
