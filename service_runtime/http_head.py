"""HTTP/1.1 by uvicorn, with limits for the head of a request: how large it may be, and how long it may take.

Uvicorn bounds neither: a client that never ends its headers would hold a connection, and memory, for as long as it
likes. Everything after the head is the application's business.
"""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT = 64 * 1024
HEAD_TIMEOUT = 20.0


class HeadTooLarge(Exception):
    """The head of a request exceeds its limit."""


class BoundedHeadProtocol(HttpToolsProtocol):
    """Answers 431 to a head that is too large and 408 to one that is too late, and closes the connection."""

    head_limit: ClassVar[int] = HEAD_LIMIT
    head_timeout: ClassVar[float] = HEAD_TIMEOUT

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = True
        self._head_size = 0
        self._too_large = False
        self._moved_on = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Waits for the first head from now on."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser. A head that goes on after its limit is refused without being read to its end."""
        if self._in_head and self._deadline is None:
            self._arm()
        self._moved_on = False
        super().data_received(data)
        if self._in_head and not self._moved_on and not self._too_large:
            self._head_size += len(data)
            if self._head_size > self.head_limit:
                self._too_large = True
                self.send_400_response("")

    def on_headers_complete(self) -> None:
        """Hands the request to the application. Raises `HeadTooLarge`, which uvicorn takes for a parser's error."""
        self._in_head = False
        self._moved_on = True
        self._head_size = 0
        self._disarm()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.head_limit:
            self._too_large = True
            raise HeadTooLarge
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Notes that the next byte begins a head."""
        self._in_head = True
        self._moved_on = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuses a request that cannot be read, and closes the connection."""
        if self._too_large:
            self._refuse(b"431 Request Header Fields Too Large", b"The request's headers are too large.")
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.head_timeout, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._arm()  # a request was sent ahead while an earlier one is still being answered
        else:
            self._refuse(b"408 Request Timeout", b"The request's headers did not arrive in time.")

    def _refuse(self, status: bytes, sentence: bytes) -> None:
        if self.transport.is_closing():
            return
        headers = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d" % len(sentence)
        self.transport.write(b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, headers, sentence))
        self.transport.close()


def bounded_head(*, limit: int = HEAD_LIMIT, timeout: float = HEAD_TIMEOUT) -> type[BoundedHeadProtocol]:
    """Returns the protocol with these limits, for uvicorn's `http` option."""
    return type("BoundedHead", (BoundedHeadProtocol,), {"head_limit": limit, "head_timeout": timeout})
