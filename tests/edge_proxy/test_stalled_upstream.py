"""An upstream that keeps its socket open and stops reading: nobody waits for it for long, and nobody's seat does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

from admission_client.memory import MemoryAdmission
from tests.edge_proxy.running import RunningEdge, running_edge, until
from tests.edge_proxy.scripted_upstream import TURN, created
from tests.edge_proxy.test_socket_turns import open_socket, receive, turn, whole_turn

TOO_MUCH_TO_BUFFER = "x" * 12_000_000
"""More than two kernels' buffers and asyncio's take, and less than the largest frame."""
TOO_LARGE_A_FRAME = json.dumps({"type": "response.append", "input": TOO_MUCH_TO_BUFFER})
CANCEL = json.dumps({"type": "response.cancel"})
AT_ONCE = 5.0
"""Seconds: far below every deadline of an edge with its own settings, also on a busy machine."""


@dataclass
class StalledUpstream:
    """Answers the first turn of a socket with these events, if there are any, and reads no more."""

    events: tuple[dict[str, Any], ...]
    release: asyncio.Event = field(default_factory=asyncio.Event)
    stalled: int = 0
    """Sockets that are not being read."""

    async def handle(self, socket: ServerConnection) -> None:
        if self.events:
            await socket.recv()
        socket.transport.pause_reading()
        for event in self.events:
            await socket.send(json.dumps(event))
        self.stalled += 1
        await self.release.wait()
        socket.transport.abort()


@asynccontextmanager
async def stalled_upstream(admission: MemoryAdmission, *events: dict[str, Any]) -> AsyncIterator[StalledUpstream]:
    """Runs one, and puts every account of `admission` there."""
    upstream = StalledUpstream(events)
    async with serve(upstream.handle, "127.0.0.1", 0, ping_interval=None, compression=None, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"http://127.0.0.1:{port}/backend-api"
        admission.accounts = [replace(account, base_url=url) for account in admission.accounts]
        try:
            yield upstream
        finally:
            upstream.release.set()


async def test_a_client_that_leaves_while_its_turn_is_being_sent_gets_all_back_at_once(
    edge: RunningEdge, admission: MemoryAdmission
):
    async with stalled_upstream(admission) as upstream:
        socket = await open_socket(edge)
        await socket.send(turn(input=TOO_MUCH_TO_BUFFER))
        await until(lambda: upstream.stalled == 1)
        await socket.send(CANCEL)

        socket.transport.abort()

        await until(lambda: edge.idle, within=AT_ONCE)


async def test_a_client_that_leaves_behind_a_frame_that_nobody_reads_gets_all_back_at_once(
    edge: RunningEdge, admission: MemoryAdmission
):
    async with stalled_upstream(admission, created()):
        socket = await open_socket(edge)
        await socket.send(turn())
        await receive(socket)
        await socket.send(TOO_LARGE_A_FRAME)
        await socket.send(CANCEL)

        socket.transport.abort()

        await until(lambda: edge.idle, within=AT_ONCE)


async def test_a_client_that_stays_is_told_within_the_send_deadline_and_its_seats_come_back(
    admission: MemoryAdmission,
):
    async with (
        running_edge(admission, upstream_write_timeout=0.3) as edge,
        stalled_upstream(admission) as upstream,
        open_socket(edge) as socket,
    ):
        (told,) = await whole_turn(socket, input=TOO_MUCH_TO_BUFFER)
        await until(lambda: admission.held == {"lanes/proxy_websocket": 1})

        assert (told["status"], told["error"]["code"]) == (504, "upstream_request_timeout")
        assert upstream.stalled >= 1


async def test_a_client_hears_from_us_while_its_turn_is_being_sent(admission: MemoryAdmission):
    async with (
        running_edge(admission, keepalive_interval=0.05) as edge,
        stalled_upstream(admission),
        open_socket(edge, originator="codex_exec") as socket,
    ):
        await socket.send(turn(input=TOO_MUCH_TO_BUFFER))

        assert (await receive(socket))["type"] == "codex.keepalive"


async def test_a_running_turn_ends_when_the_upstream_does_not_take_another_frame(admission: MemoryAdmission):
    async with (
        running_edge(admission, upstream_write_timeout=0.3) as edge,
        stalled_upstream(admission, created()),
        open_socket(edge) as socket,
    ):
        await socket.send(turn())
        await receive(socket)
        await socket.send(TOO_LARGE_A_FRAME)
        told = await receive(socket)
        await until(lambda: admission.held == {"lanes/proxy_websocket": 1})

        assert told["type"] == "response.failed"


async def test_frames_that_nobody_takes_are_refused_in_the_end(edge: RunningEdge, admission: MemoryAdmission):
    async with stalled_upstream(admission, created()), open_socket(edge) as socket:
        await socket.send(turn())
        await receive(socket)
        await socket.send(TOO_LARGE_A_FRAME)
        for _ in range(70):
            await socket.send(CANCEL)

        refused = await receive(socket)
        socket.transport.abort()  # a closing handshake would wait behind the refusals that this test does not read

    assert (refused["type"], refused["status"]) == ("error", 400)


async def test_closing_an_idle_line_does_not_wait_for_its_upstream(edge: RunningEdge, admission: MemoryAdmission):
    async with stalled_upstream(admission, *TURN):
        socket = await open_socket(edge)
        await whole_turn(socket)
        await socket.send(TOO_LARGE_A_FRAME)

        await socket.close()

        await until(lambda: edge.idle, within=AT_ONCE)
