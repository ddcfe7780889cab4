"""Upstream WebSockets, by `websockets`; and, for upstreams without them, a turn over HTTP that looks like one.

A socket belongs to one account. It remembers which responses were made on it, because a turn that goes on from one of
them can only be served there.
"""

import asyncio
import contextlib
from collections import deque
from typing import Protocol
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.protocol import State

from admission_client.lease import GrantedAccount
from edge_proxy.errors import UpstreamFailed, UpstreamTrouble
from edge_proxy.headers import socket_headers
from edge_proxy.patience import Patience
from edge_proxy.settings import EdgeSettings
from edge_proxy.sse import EventTooLarge, SseParser
from edge_proxy.upstream import UpstreamResponse
from edge_proxy.upstream_address import AddressRefused, AddressRule

_REMEMBERED = 64
_PING_INTERVAL = 20.0
_PING_TIMEOUT = 120.0
_CLOSE_TIMEOUT = 1.0
_FRAMES_AHEAD = 16
_MOST_POSTED = 64
_MOST_POSTED_CHARACTERS = 1024 * 1024
"""What may wait before one more frame is posted, so that a single frame may be of any size."""


class FrameSource(Protocol):
    """Where the events of a turn come from, one JSON text each."""

    async def frame(self, *, within: float) -> bytes | None:
        """Returns the next event, or None when there was none for `within` seconds. Raises `UpstreamFailed`."""


class HandshakeRefused(Exception):
    """The upstream answered the handshake with something else than 101."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(f"The upstream refused the handshake with {status}.")
        self.status = status
        self.headers = headers
        self.body = body


class _Connect(connect):
    """Never follows a redirect: it would carry the account's credential to somewhere else."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class UpstreamSocket:
    """One open socket to an account's upstream."""

    def __init__(self, connection: ClientConnection, account: GrantedAccount, *, write_timeout: float) -> None:
        self.account = account
        self.turns = 0
        """Turns that were sent on it."""
        self._connection = connection
        self._write_timeout = write_timeout
        self._posted: deque[str] = deque()
        self._delivering: asyncio.Task[None] | None = None
        self._patience = Patience()
        self._made: deque[str] = deque(maxlen=_REMEMBERED)

    @property
    def open(self) -> bool:
        """Whether a turn can be sent."""
        return self._connection.state is State.OPEN

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the handshake's answer, in lower case."""
        response = self._connection.response
        return {name.lower(): value for name, value in response.headers.raw_items()} if response else {}

    def made(self, response_id: str) -> bool:
        """Returns whether a response was made here."""
        return response_id in self._made

    def remember(self, response_id: str) -> None:
        """Notes that a response was made here."""
        self._made.append(response_id)

    async def send(self, text: str) -> None:
        """Sends a frame. Raises `UpstreamFailed`, and then the socket is of no use any more."""
        try:
            await self._patience.wait(self._connection.send(text), within=self._write_timeout)
        except TimeoutError:
            self._connection.transport.abort()
            raise UpstreamFailed(UpstreamTrouble.TOO_LATE, "The upstream has stopped reading.") from None
        except ConnectionClosed as error:
            raise UpstreamFailed(UpstreamTrouble.CUT, "The upstream closed the socket.") from error

    def post(self, text: str) -> bool:
        """Sends a frame without anybody waiting for it. Returns false when too much waits already.

        Whoever reads from the socket finds out when it cannot be sent.
        """
        if len(self._posted) >= _MOST_POSTED or sum(map(len, self._posted)) > _MOST_POSTED_CHARACTERS:
            return False
        self._posted.append(text)
        if self._delivering is None or self._delivering.done():
            self._delivering = asyncio.create_task(self._deliver())
        return True

    async def _deliver(self) -> None:
        with contextlib.suppress(UpstreamFailed):
            while self._posted:
                await self.send(self._posted.popleft())

    async def frame(self, *, within: float | None) -> bytes | None:
        """Returns the next frame, or None after `within` seconds without one. Raises `UpstreamFailed`."""
        waiting = self._connection.recv(decode=False)
        try:
            return await (waiting if within is None else self._patience.wait(waiting, within=within))
        except TimeoutError:
            return None
        except ConnectionClosed as error:
            raise UpstreamFailed(UpstreamTrouble.CUT, "The upstream closed the socket.") from error

    async def drop(self) -> None:
        """Ends it in the middle of a turn: at once, because the turn's seats wait for it."""
        self._patience.close()
        self._posted.clear()
        self._connection.transport.abort()
        await self._connection.wait_closed()

    async def close(self) -> None:
        """Closes it, without waiting long for an upstream that does not answer, or does not even read."""
        self._posted.clear()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._connection.close()
        finally:
            await self.drop()


async def connect_upstream(
    url: str, headers: list[tuple[str, str]], account: GrantedAccount, settings: EdgeSettings
) -> UpstreamSocket:
    """Opens a socket. Raises `HandshakeRefused` and `UpstreamFailed`."""
    try:
        async with asyncio.timeout(settings.handshake_timeout):
            connection = await _handshake(url, headers, account, settings)
    except InvalidStatus as error:
        answer = error.response
        told = {name.lower(): value for name, value in answer.headers.raw_items()}
        raise HandshakeRefused(answer.status_code, told, bytes(answer.body or b"")) from error
    except TimeoutError:
        raise UpstreamFailed(UpstreamTrouble.TOO_LATE, "The upstream did not open a socket in time.") from None
    except AddressRefused as error:
        raise UpstreamFailed(UpstreamTrouble.ADDRESS_REFUSED, str(error)) from None
    except (OSError, InvalidHandshake, WebSocketException, websockets.InvalidURI) as error:
        raise UpstreamFailed(UpstreamTrouble.UNREACHABLE, "The upstream cannot be reached.") from error
    return UpstreamSocket(connection, account, write_timeout=settings.upstream_write_timeout)


async def _handshake(
    url: str, headers: list[tuple[str, str]], account: GrantedAccount, settings: EdgeSettings
) -> ClientConnection:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    rule = AddressRule(secure, account.private_upstream)
    wire = await rule.connect(parts.hostname or "", parts.port or (443 if secure else 80))
    agent = next((value for name, value in headers if name == "user-agent"), None)
    try:
        return await _Connect(
            "ws" + url.removeprefix("http"),
            sock=wire,
            additional_headers=socket_headers(headers),
            user_agent_header=agent,
            compression=None,
            proxy=None,
            open_timeout=None,
            close_timeout=_CLOSE_TIMEOUT,
            ping_interval=_PING_INTERVAL,
            ping_timeout=_PING_TIMEOUT,
            max_size=settings.frame_limit,
            max_queue=_FRAMES_AHEAD,
        )
    except BaseException:
        wire.close()
        raise


class StreamedFrames:
    """The events of an HTTP stream, as frames."""

    def __init__(self, response: UpstreamResponse) -> None:
        self._response = response
        self._parser = SseParser()
        self._waiting: deque[bytes] = deque()

    async def frame(self, *, within: float) -> bytes | None:
        """Returns the next event's data. Raises `UpstreamFailed` at the end: a turn ends by its terminal event."""
        while not self._waiting:
            chunk = await self._response.chunk(within=within)
            if chunk is None:
                return None
            if not chunk:
                raise UpstreamFailed(UpstreamTrouble.CUT, "The upstream's stream ended before its response did.")
            try:
                self._waiting.extend(event.data for event in self._parser.feed(chunk) if event.name)
            except EventTooLarge:
                raise UpstreamFailed(UpstreamTrouble.TOO_LARGE, "An event of the upstream is too large.") from None
        return self._waiting.popleft()
