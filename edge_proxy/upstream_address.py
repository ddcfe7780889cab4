"""The addresses that an upstream connection may go to, asked about the very address that is connected to.

A name that meant something harmless a second ago may mean this machine now, and a URL may spell an address in ways
that only the resolver understands. So the rule is applied to sockets, never to names; TLS still proves the name.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

from service_runtime.addresses import address_in, refusal

SocketInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""One row of `getaddrinfo`."""


class AddressRefused(OSError):
    """An upstream is at an address that it may not be at."""


@dataclass(frozen=True, slots=True)
class AddressRule:
    """Where connections of one kind may go."""

    secure: bool
    """Whether TLS is spoken on them."""
    allow_private: bool

    def socket_to(self, info: SocketInfo) -> socket.socket:
        """Returns a socket that may be connected to this address. Raises `AddressRefused`."""
        family, kind, protocol, _name, where = info
        address = address_in(str(where[0]))
        if address is None:
            raise AddressRefused("This is not an address.")
        if reason := refusal(address, secure=self.secure, allow_private=self.allow_private):
            raise AddressRefused(reason)
        return socket.socket(family, kind, protocol)

    async def connect(self, host: str, port: int) -> socket.socket:
        """Returns a socket that is connected to an address of the host. Raises `OSError`, the last address' own."""
        loop = asyncio.get_running_loop()
        last = OSError(f"{host} has no address")
        for info in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                return await _connected(self.socket_to(info), info[4])
            except OSError as error:
                last = error
        raise last


async def _connected(connection: socket.socket, where: tuple[Any, ...]) -> socket.socket:
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, where)
    except BaseException:
        connection.close()
        raise
    return connection
