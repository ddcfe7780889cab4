"""Which upstream URLs are allowed, and an HTTP transport that checks addresses when it connects.

A base URL is http or https, without credentials, query or fragment; `service_runtime.addresses` has the rules for
addresses. A name may resolve to something else a second later, so the check that counts is made on the very address
that is connected to; redirects are not followed by any of our clients.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import httpx

from control_api.errors import InputRefused
from service_runtime.addresses import PrivateHosts, address_in, refusal

Resolve = Callable[[str, int], Awaitable[list[str]]]


class AddressRefused(httpx.ConnectError):
    """The address that a name resolved to is not one that may be talked to."""


def checked_base_url(url: str, *, private_hosts: PrivateHosts, field: str = "base_url") -> str:
    """Returns the URL without a trailing slash. Raises `InputRefused` when it can never be allowed."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InputRefused("This is not a URL.", field=field) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputRefused("The URL must begin with https:// (or http:// for a private address).", field=field)
    if parts.username is not None or parts.password is not None:
        raise InputRefused("The URL must not hold credentials.", field=field)
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise InputRefused("The URL must have neither a query nor a fragment.", field=field)
    if port == 0 or not url.isascii() or any(character <= " " or character == "\\" for character in url):
        raise InputRefused("This is not a URL.", field=field)
    allow_private = private_hosts.allow(parts.hostname)
    literal = address_in(parts.hostname)
    if literal is not None and (
        reason := refusal(literal, secure=parts.scheme == "https", allow_private=allow_private)
    ):
        raise InputRefused(reason, field=field)
    if parts.scheme == "http" and not allow_private:
        raise InputRefused("Plain http is for private addresses only, and those are not allowed here.", field=field)
    return url.rstrip("/")


class CheckedTransport(httpx.AsyncBaseTransport):
    """Resolves the host itself, refuses what is not allowed, and connects to the very address that it checked.

    Each host has a transport of its own, made by `make_inner`: connections are pooled by the address in the URL, and
    one that has proven one name must never carry a request for another at the same address.
    """

    def __init__(
        self,
        make_inner: Callable[[], httpx.AsyncBaseTransport],
        *,
        private_hosts: PrivateHosts,
        resolve: Resolve | None = None,
    ) -> None:
        self._make_inner = make_inner
        self._inner: dict[str, httpx.AsyncBaseTransport] = {}
        self._private_hosts = private_hosts
        self._resolve = resolve or resolve_host

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends the request. Raises `AddressRefused` when the host resolves to nothing that is allowed."""
        host = request.url.host
        address = await self._checked(request, host)
        # TLS still proves the name: only the address of the connection is replaced.
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.url = request.url.copy_with(host=address)
        inner = self._inner.get(host)
        if inner is None:
            inner = self._inner[host] = self._make_inner()
        return await inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Closes the connections."""
        for inner in self._inner.values():
            await inner.aclose()

    async def _checked(self, request: httpx.Request, host: str) -> str:
        try:
            found = [host] if address_in(host) else await self._resolve(host, request.url.port or 443)
        except OSError as error:
            raise httpx.ConnectError(f"cannot resolve {host}: {error}", request=request) from None
        reason = "the name resolves to nothing"
        for text in found:
            address = address_in(text)
            if address is None:
                continue
            reason = refusal(
                address, secure=request.url.scheme == "https", allow_private=self._private_hosts.allow(host)
            )
            if not reason:
                return str(address)
        raise AddressRefused(f"{host}: {reason}", request=request)


async def resolve_host(host: str, port: int) -> list[str]:
    """Returns the addresses of a name, IPv4 first: hosts without IPv6 are common, hosts without IPv4 are not."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]).partition("%")[0] for info in sorted(infos, key=lambda info: info[0] != socket.AF_INET)]
