"""HTTP/1.1 by uvicorn, with limits for the head of a request: how large it may be, and how long it may take.

Uvicorn bounds neither: a client that never ends its headers would hold a connection, and memory, for as long as it
likes. An offer to go on in another protocol than WebSocket (`Upgrade: h2c`) is passed over, as HTTP allows: the parser
alone would take the request's body for that protocol. Everything after the head is the application's business.
"""

import asyncio
import sys
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service_runtime.gathered_writes import GatheringTransport

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
        self._fed = b""
        self._left = b""
        self._rereading = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Waits for the first head from now on."""
        super().connection_made(GatheringTransport(transport, self.loop))
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops waiting."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser. A head that goes on after its limit is refused without being read to its end."""
        if self._in_head and self._deadline is None:
            self._arm()
        self._left = data
        while self._left:
            self._fed, self._left = self._left, b""
            self._moved_on = False
            super().data_received(self._fed)
            if self._in_head and not self._moved_on and not self._too_large:
                self._head_size += len(self._fed)
                if self._head_size > self.head_limit:
                    self._too_large = True
                    self.send_400_response("")
        self._fed = b""

    def on_message_begin(self) -> None:
        """Begins a request, unless its head is only read again."""
        if not self._rereading:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Takes a part of the request's target."""
        if not self._rereading:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header."""
        if not self._rereading:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hands the request to the application. Raises `HeadTooLarge`, which uvicorn takes for a parser's error."""
        if self._rereading:
            self._rereading = False
            return
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
        if self._offers_upgrade():
            return  # the parser's opinion: the body is still to come
        self._in_head = True
        self._moved_on = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuses a request that cannot be read, and closes the connection."""
        if self._too_large:
            self._refuse(b"431 Request Header Fields Too Large", b"The request's headers are too large.")
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    def _unsupported_upgrade_warning(self) -> None:
        """Reads on behind a head that offered an upgrade: with a new parser, which is told only of the body."""
        offer = sys.exception()
        if not isinstance(offer, httptools.HttpParserUpgrade) or self.parser.get_method() == b"CONNECT":
            super()._unsupported_upgrade_warning()
            return
        framing = [
            b"%b: %b\r\n" % (name, value)
            for name, value in self.headers
            if name in {b"content-length", b"transfer-encoding"}
        ]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._rereading = True
        self._left = b"POST / HTTP/1.1\r\n%b\r\n%b" % (b"".join(framing), self._fed[offer.args[0] :])

    def _offers_upgrade(self) -> bool:
        return self.parser.should_upgrade() and not self._should_upgrade() and self.parser.get_method() != b"CONNECT"

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
