"""The life of a client's socket around its turns: handshake, idle reclaim, pings, drain."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from admission_client.memory import MemoryAdmission
from tests.edge_proxy.running import RunningEdge, running_edge, until
from tests.edge_proxy.scripted_upstream import ScriptedUpstream, completed, created, sockets
from tests.edge_proxy.test_socket_turns import CODEX, open_socket, receive, turn, whole_turn


async def test_a_full_lane_answers_the_handshake_with_a_real_429(edge: RunningEdge, admission: MemoryAdmission):
    admission.set_limit("lanes/proxy_websocket", 1)
    async with open_socket(edge):
        with pytest.raises(InvalidStatus) as refused:
            await open_socket(edge)

    response = refused.value.response
    assert response.status_code == 429
    assert json.loads(response.body)["error"]["code"] == "proxy_overloaded"
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["x-sluicegate-lane"] == "proxy_websocket"


async def test_the_lane_admits_again_when_a_socket_has_ended(edge: RunningEdge, admission: MemoryAdmission):
    admission.set_limit("lanes/proxy_websocket", 1)
    async with open_socket(edge):
        pass
    await until(lambda: edge.idle)

    async with open_socket(edge):
        assert admission.held["lanes/proxy_websocket"] == 1


@pytest.mark.parametrize(("path", "status"), [("/v1/realtime", 404), ("/v1//responses", 400), (CODEX, 401)])
async def test_a_refused_handshake_is_a_real_answer(edge: RunningEdge, path: str, status: int):
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws{edge.url.removeprefix('http')}{path}", proxy=None)

    assert refused.value.response.status_code == status


async def test_an_idle_socket_is_closed_1001_and_its_seat_comes_back(
    admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(sockets(upstream))
    async with running_edge(admission, idle_timeout=0.2) as edge:
        async with open_socket(edge) as socket:
            await whole_turn(socket)
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(socket.recv(), 5)
        await until(lambda: edge.idle)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert "idle" in closed.value.rcvd.reason
    assert upstream.sockets_open == 0


async def test_a_socket_that_never_sends_is_idle_too(admission: MemoryAdmission):
    async with running_edge(admission, idle_timeout=0.2) as edge, open_socket(edge) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 5)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


async def test_a_running_turn_keeps_the_socket_past_the_idle_limit(
    admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(sockets(upstream, [created(), "hang", completed()]))
    async with running_edge(admission, idle_timeout=0.1, keepalive_interval=0.1) as edge, open_socket(edge) as socket:
        await socket.send(turn())
        await receive(socket)
        for _ in range(4):  # four intervals of silence, each longer than an idle socket may live
            assert (await receive(socket))["type"] == "response.in_progress"
        upstream.release.set()
        assert (await receive(socket))["type"] == "response.completed"


async def test_pings_are_answered_during_a_turn(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(sockets(upstream, [created(), "hang", completed()]))
    async with open_socket(edge) as socket:
        await socket.send(turn())
        await receive(socket)

        await asyncio.wait_for(await socket.ping(), 5)


async def test_codex_gets_a_keepalive_before_its_response_exists_and_others_get_silence(
    admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(sockets(upstream, ["hang", created(), completed()]))
    async with (
        running_edge(admission, keepalive_interval=0.05) as edge,
        open_socket(edge, originator="codex_exec") as codex,
        open_socket(edge) as other,
    ):
        await codex.send(turn())
        await other.send(turn())
        keepalive = await receive(codex)
        upstream.release.set()
        first = await receive(other)

    assert keepalive["type"] == "codex.keepalive"
    assert keepalive["status"] == "pending_response_created"
    assert first["type"] == "response.created"


async def test_drain_closes_idle_sockets_1012_lets_turns_finish_and_refuses_new_ones(
    edge: RunningEdge, upstream: ScriptedUpstream
):
    upstream.script(sockets(upstream, [created(), "hang", completed()]))
    async with open_socket(edge) as busy, open_socket(edge) as idle:
        await busy.send(turn())
        await receive(busy)
        draining = asyncio.create_task(edge.app.drain.run(5.0))
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(idle.recv(), 5)
        with pytest.raises(InvalidStatus) as refused:
            await open_socket(edge)
        await busy.send(turn())
        new_turn = await receive(busy)
        upstream.release.set()
        last = await receive(busy)
        ended_early = await asyncio.wait_for(draining, 5)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert (new_turn["status"], last["type"], ended_early) == (503, "response.completed", 0)
    assert "retry-after" in new_turn["headers"]


async def test_what_outlasts_the_drain_gets_response_failed(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(sockets(upstream, [created(), "hang", completed()]))
    async with open_socket(edge) as socket:
        await socket.send(turn())
        await receive(socket)
        ended_early = await edge.app.drain.run(0.1)
        last = await receive(socket)

    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "edge_draining"
    assert ended_early >= 1
    assert edge.idle
