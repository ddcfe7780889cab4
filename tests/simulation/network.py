"""Streams between machines, in the place of gRPC. Like TCP: what arrives is a beginning of what was sent, in order.

A stream may be slow, may stall for a while (a partition), and may break: then a part of what was under way still
arrives, and each end learns of it at a time of its own; the far end perhaps when a newer stream is open already.
Messages travel as bytes, so the two sides never share an object.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from tests.simulation.world import Machine, World


class Aborted(Exception):
    """The servicer has ended its stream with a status."""


class Direction:
    """One way of a stream: ordered, delayed."""

    def __init__(self, world: World, receiver: Machine, latency: float) -> None:
        self._world = world
        self._receiver = receiver
        self._latency = latency
        self._last_at = 0.0
        self._lost_from = float("inf")
        self._stalled_until = 0.0
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def write(self, message: bytes) -> None:
        """Sends a message; writing itself takes a moment too, in which other things pile up."""
        self._send(lambda: self._arrived.put_nowait(message))
        await asyncio.sleep(self._world.random.uniform(0.0, 0.002))

    async def read(self) -> bytes | None:
        """Returns the next message; None once there will be none."""
        message = await self._arrived.get()
        if message is None:
            self._arrived.put_nowait(None)
        return message

    def end(self, then: Callable[[], None] = lambda: None) -> None:
        """Ends this way after everything that was sent."""

        def ends() -> None:
            then()
            self._arrived.put_nowait(None)

        self._send(ends)

    def stall(self, seconds: float) -> None:
        """Lets nothing through for a while."""
        self._stalled_until = max(self._stalled_until, self._world.now + seconds)

    def lose_from(self, at: float) -> None:
        """Loses everything that would arrive later than a time."""
        self._lost_from = min(self._lost_from, at)

    def _send(self, arrives: Callable[[], None]) -> None:
        # A microsecond apart: asyncio does not keep timers of the same moment in order.
        at = max(self._last_at + 1e-6, max(self._world.now, self._stalled_until) + self.delay())
        self._last_at = at
        self._receiver.call_at(at, lambda: arrives() if at < self._lost_from else None)

    def delay(self) -> float:
        """Returns how long something takes. Mostly little, now and then much: the tail is where protocols break."""
        slow = 20.0 if self._world.chance(0.02) else 1.0
        return self._latency * self._world.random.uniform(0.2, 1.0) * slow


class SimulatedStream:
    """Both ways, as the client's shell and the servicer see them."""

    def __init__(
        self,
        world: World,
        client: Machine,
        server: Machine,
        *,
        kinds: tuple[type[Message], type[Message]],
        latency: float,
        metadata: Any,
    ) -> None:
        """`kinds` are the messages that go to the server, and those that come back."""
        self._request_kind, self._response_kind = kinds
        self._world = world
        self._client = client
        self._server = server
        self._latency = latency
        self._to_client = Direction(world, client, latency)
        self._to_server = Direction(world, server, latency)
        self._status = (grpc.StatusCode.UNAVAILABLE, "broken", ())
        self._metadata = metadata
        self.over = False
        self.handler: asyncio.Task[None] | None = None

    # --- the client's end: `Stream` of `admission_client.session` and of `admission_client.sync`

    async def read(self) -> object:
        """Returns the next message of the server, None at the end."""
        message = await self._to_client.read()
        return self._response_kind.FromString(message) if message is not None else None

    async def write(self, request: Message, /) -> None:
        """Sends a message to the server."""
        if not self.over:
            await self._to_server.write(request.SerializeToString())

    async def done_writing(self) -> None:
        """Says that no message will follow."""
        if not self.over:
            self._to_server.end()

    async def code(self) -> grpc.StatusCode:
        """Returns the status."""
        return self._status[0]

    async def details(self) -> str | None:
        """Returns its message."""
        return self._status[1]

    async def trailing_metadata(self) -> Any:
        """Returns what came with it."""
        return self._status[2]

    def cancel(self) -> None:
        """The client gives the stream up. What it sent may still arrive, and the server hears of the end late."""
        if not self.over:
            self.over = True
            self._to_client.lose_from(self._world.now)
            self._tell_server()

    # --- the server's end: what the servicer uses of a gRPC context

    async def requests(self) -> AsyncIterator[Message]:
        """Yields the client's messages."""
        while (message := await self._to_server.read()) is not None:
            yield self._request_kind.FromString(message)

    @property
    def context(self) -> "_Context":
        """The servicer's context."""
        return _Context(self, self._metadata)

    async def server_writes(self, response: Message) -> None:
        """Sends a message to the client."""
        if not self.over:
            await self._to_client.write(response.SerializeToString())

    def end_by_server(self, code: grpc.StatusCode, message: str, metadata: Any) -> None:
        """The servicer has returned. The client hears why, after everything that was sent before."""
        if not self.over:
            self.over = True

            def tell() -> None:
                self._status = (code, message, metadata)

            self._to_client.end(tell)

    # --- the network's doing

    def stall(self, seconds: float) -> None:
        """Lets nothing through for a while."""
        self._to_client.stall(seconds)
        self._to_server.stall(seconds)

    def break_off(self) -> None:
        """Breaks the stream: a part of what is under way arrives, and each end learns of it in its own time."""
        if not self.over:
            self.over = True
            horizon = 4 * self._latency
            self._to_client.lose_from(self._world.now + self._world.random.uniform(0, horizon))
            self._to_server.lose_from(self._world.now + self._world.random.uniform(0, horizon))
            when = self._world.now + horizon + self._to_client.delay()
            self._client.call_at(when, lambda: self._to_client._arrived.put_nowait(None))
            self._tell_server()

    def _tell_server(self) -> None:
        late = self._world.random.choice([0.0, 0.0, 0.5, 20.0])
        when = self._world.now + 4 * self._latency + self._to_server.delay() + late
        self._server.call_at(when, self._cancel_handler)

    def _cancel_handler(self) -> None:
        if self.handler is not None:
            self.handler.cancel()


class _Context:
    """What the servicer uses of `grpc.aio.ServicerContext`."""

    def __init__(self, stream: SimulatedStream, metadata: Any) -> None:
        self._stream = stream
        self._metadata = metadata

    def invocation_metadata(self) -> Any:
        return self._metadata

    async def write(self, response: Message) -> None:
        await self._stream.server_writes(response)

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any = ()) -> None:
        self._stream.end_by_server(code, details, trailing_metadata)
        raise Aborted(details)
