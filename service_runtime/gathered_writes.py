"""A transport that sends what is written in one round of the event loop in one piece.

uvloop hands every write to the kernel at once, which costs some 20 µs each: two for a refusal, three for a small turn,
eleven for one over a WebSocket. Nothing ever waits for more to come: what a round has written leaves at its end.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

_MOST_GATHERED = 64 * 1024


class GatheringTransport(asyncio.Transport):
    """Stands before a transport, and is one itself. For protocols that run on `loop`."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._gathered: list[bytes | bytearray | memoryview] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends bytes at the end of this round, or at once when much has come together. They must not change."""
        if not self._gathered:
            self._loop.call_soon(self._send)
        self._gathered.append(data)
        self._size += len(data)
        if self._size > _MOST_GATHERED:
            self._send()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Sends several pieces."""
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        """Closes the connection behind what was written."""
        self._send()
        self._transport.close()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._forget()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Reads no more for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads again."""
        self._transport.resume_reading()

    def is_reading(self) -> bool:
        """Whether it reads."""
        return self._transport.is_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Returns what the transport behind it knows."""
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Gives the connection to another protocol."""
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Returns the protocol that has the connection."""
        return self._transport.get_protocol()

    def get_write_buffer_size(self) -> int:
        """Returns how many bytes are still to be sent."""
        return self._size + self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Says when the protocol is told to pause."""
        self._transport.set_write_buffer_limits(high, low)

    def _send(self) -> None:
        if not self._gathered:
            return
        data = self._gathered[0] if len(self._gathered) == 1 else b"".join(self._gathered)
        self._forget()
        if not self._transport.is_closing():  # the connection may have been lost in this very round
            self._transport.write(data)

    def _forget(self) -> None:
        self._gathered.clear()
        self._size = 0
