"""The way to the upstreams over HTTP: one aiohttp session a kind of address, for all requests of a process.

Every failure of the transport becomes an `UpstreamFailed` that says which; every answer, whatever its status, is
returned. Leaving the block closes the answer: an upstream that still streams then sees its connection end.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from edge_proxy.errors import UpstreamFailed, UpstreamTrouble
from edge_proxy.patience import Patience
from edge_proxy.settings import EdgeSettings
from edge_proxy.upstream_address import AddressRefused, AddressRule

_ERROR_BODY_LIMIT = 1024 * 1024
_OUR_OWN_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_POOL_KEEPALIVE = 15.0
_WRITTEN_AT_ONCE = 64 * 1024


class UpstreamResponse:
    """An answer whose body is still to be read."""

    def __init__(self, response: aiohttp.ClientResponse, patience: Patience) -> None:
        self._response = response
        self._patience = patience
        self.status = response.status
        self.raw_headers = response.raw_headers
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of server-sent events."""
        return self.headers.get("content-type", "").lower().startswith("text/event-stream")

    async def chunk(self, *, within: float) -> bytes | None:
        """Returns what has arrived, b"" at the end, or None when nothing came for `within` seconds.

        Raises `UpstreamFailed` when the upstream cut the body short.
        """
        try:
            return await self._patience.wait(self._response.content.readany(), within=within)
        except TimeoutError:
            return None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamFailed(UpstreamTrouble.CUT, "The upstream cut its answer short.") from error

    async def body(self, *, limit: int = _ERROR_BODY_LIMIT, within: float) -> bytes:
        """Returns the whole body. Raises `UpstreamFailed` when it is cut, late, or larger than `limit`."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(within):
                while part := await self._response.content.readany():
                    parts.append(part)
                    size += len(part)
                    if size > limit:
                        raise UpstreamFailed(UpstreamTrouble.TOO_LARGE, "The upstream's answer is too large.")
        except TimeoutError:
            raise UpstreamFailed(UpstreamTrouble.TOO_LATE, "The upstream did not finish its answer.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamFailed(UpstreamTrouble.CUT, "The upstream cut its answer short.") from error
        return b"".join(parts)

    def close(self) -> None:
        """Closes the connection, or keeps it for others if the answer was read to its end."""
        # Not always `release`: an answer that was not read to its end must end the upstream's work now.
        if self._response.content.is_eof():
            self._response.release()
        else:
            self._response.close()


async def _answer(
    session: aiohttp.ClientSession, method: str, url: str, headers: list[tuple[str, str]], body: bytes | None
) -> aiohttp.ClientResponse:
    try:
        return await _request(session, method, url, headers, body)
    except aiohttp.ServerDisconnectedError:
        # Most likely a pooled connection that the upstream closed just now: not worth blaming the account.
        return await _request(session, method, url, headers, body)


async def _request(
    session: aiohttp.ClientSession, method: str, url: str, headers: list[tuple[str, str]], body: bytes | None
) -> aiohttp.ClientResponse:
    # A large body goes out in parts, so that it does not hold up the loop.
    data = io.BytesIO(body) if body and len(body) > _WRITTEN_AT_ONCE else body
    return await session.request(method, URL(url, encoded=True), headers=headers, data=data, allow_redirects=False)


class Upstream:
    """Sends requests to upstreams. Build it inside the running loop; close it at the end."""

    def __init__(self, settings: EdgeSettings) -> None:
        self._connect_timeout = settings.connect_timeout
        self._headers_timeout = settings.headers_timeout
        # Accounts with different rules share no connection: an open one would not be asked about again.
        rules = [AddressRule(secure, private) for secure in (True, False) for private in (True, False)]
        self._sessions = {rule: self._session(rule) for rule in rules}

    def _session(self, rule: AddressRule) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # The limits are the admission server's business; a second, hidden queue here would only add waiting.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_POOL_KEEPALIVE, socket_factory=rule.socket_to),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_OUR_OWN_HEADERS,
            auto_decompress=True,
            raise_for_status=False,
        )

    @asynccontextmanager
    async def send(
        self,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        body: bytes | None = None,
        *,
        private: bool,
        patience: Patience,
    ) -> AsyncIterator[UpstreamResponse]:
        """Yields the answer as soon as its head is there. Raises `UpstreamFailed`.

        `private`: whether the upstream may be at a private address, and may be spoken to without TLS.
        `patience` bounds the waits for the answer and for its body.
        """
        session = self._sessions[AddressRule(url.startswith("https:"), private)]
        asking = _answer(session, method, url, headers, body)
        response = UpstreamResponse(await self._in_time(asking, patience), patience)
        try:
            yield response
        finally:
            response.close()

    async def _in_time(
        self, asking: Coroutine[Any, Any, aiohttp.ClientResponse], patience: Patience
    ) -> aiohttp.ClientResponse:
        try:
            return await patience.wait(asking, within=self._connect_timeout + self._headers_timeout)
        except aiohttp.ConnectionTimeoutError:
            raise UpstreamFailed(UpstreamTrouble.UNREACHABLE, "The upstream cannot be reached in time.") from None
        except TimeoutError:
            raise UpstreamFailed(UpstreamTrouble.TOO_LATE, "The upstream did not answer in time.") from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, AddressRefused):
                raise UpstreamFailed(UpstreamTrouble.ADDRESS_REFUSED, str(error.os_error)) from None
            raise UpstreamFailed(UpstreamTrouble.UNREACHABLE, "The upstream cannot be reached.") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamFailed(UpstreamTrouble.UNREACHABLE, "The upstream closed the connection.") from error

    async def close(self) -> None:
        """Closes all connections."""
        for session in self._sessions.values():
            await session.close()
