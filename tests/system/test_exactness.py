"""Limits are exact over all workers of all edges, and no seat stands empty while somebody waits for it.

Two edges with two workers each share one account: eight streams, one of which is kept for turns that reattach.
"""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import httpx
import pytest_asyncio
import websockets.asyncio.client

from demo.ports import Ports
from demo.services import SystemOptions, services_of
from tests.system.running import TURN, RunningSystem, events_of, eventually

ENVIRONMENT = {"SLUICEGATE_EDGE_WORKERS": "2"}
ORDINARY_SEATS = 7
ALL_SEATS = 8
TURNS = 200
TURN_SECONDS = 0.4
PATH = "/backend-api/codex/responses"


@dataclass(frozen=True, slots=True)
class TwoEdges:
    """A system with a second edge, and clients of both."""

    system: RunningSystem
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient]
    streams: str

    async def turn(self, number: int, *, simulate: str, **changes: object) -> httpx.Response:
        """Sends a turn to one of the edges."""
        return await self.clients[number % 2].post(
            PATH, json={**TURN, **changes}, headers={**self.system.headers, "x-simulate": simulate}
        )

    async def compete(self, number: int, simulate: str) -> str:
        """Sends a turn to one of the edges, half of them over HTTP and half on sockets; returns how it ended."""
        over_http = number % 4 < 2
        return await (self._over_http(number, simulate) if over_http else self._on_a_socket(number, simulate))

    async def _over_http(self, number: int, simulate: str) -> str:
        answer = await self.turn(number, simulate=simulate)
        return str(events_of(answer.text)[-1]["type"]) if answer.status_code == 200 else str(answer.status_code)

    async def _on_a_socket(self, number: int, simulate: str) -> str:
        uri = str(self.clients[number % 2].base_url).replace("http", "ws").rstrip("/") + PATH
        frame = {**TURN, "type": "response.create", "client_metadata": {"x-simulate": simulate}}
        async with websockets.asyncio.client.connect(
            uri, additional_headers=self.system.headers, proxy=None, open_timeout=60
        ) as socket:
            await socket.send(json.dumps(frame))
            async for message in socket:
                kind = str(json.loads(message)["type"])
                if kind in {"response.completed", "response.failed", "error"}:
                    return kind
        return "closed"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def edges(system):
    ports = replace(system.ports, edge=Ports.free().edge, edge_metrics=Ports.free().edge_metrics)
    options = SystemOptions(
        directory=system.stack.options.directory,
        ports=ports,
        edge_name="second_edge",
        environment={**ENVIRONMENT, "SLUICEGATE_EDGE_INSTANCE": "second"},
    )
    second = next(service for service in services_of(options) if service.name == "second_edge")
    system.stack.services[second.name] = second
    await system.stack.start(second.name)
    await system.stack.wait_ready(second.name)
    await system.operator.set_limit("accounts/-/streams", max_wait=60)
    await system.operator.set_limit("accounts/-/response_creates", max_wait=60)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{port}",
                    trust_env=False,
                    timeout=60,
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                )
            )
            for port in (system.ports.edge, ports.edge)
        ]
        yield TwoEdges(system, (clients[0], clients[1]), f"accounts/{system.account_id}/streams")


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def fresh_statistics(edges):
    await eventually(edges.system.nothing_is_held, what="every seat is free")
    await edges.system.operator.simulate("DELETE", "/__simulate/stats")


async def test_competing_turns_never_exceed_the_limit_and_never_leave_a_seat_empty(edges):
    simulate = f"slow={TURN_SECONDS / 10},events=3"
    turns = [asyncio.create_task(edges.compete(number, simulate)) for number in range(TURNS)]
    occupancy = await occupancy_while_somebody_waits(edges)
    ends = await asyncio.gather(*turns)

    assert set(ends) == {"response.completed"}
    assert (await streams_seen(edges))["most"] == ORDINARY_SEATS
    assert occupancy >= 0.97
    assert await total_overdraft(edges) == 0


async def test_the_seat_that_is_kept_serves_a_turn_that_reattaches(edges):
    first = await edges.turn(0, simulate="events=1")
    response_id = events_of(first.text)[-1]["response"]["id"]
    running = [asyncio.create_task(edges.turn(number, simulate="hang")) for number in range(ORDINARY_SEATS + 1)]
    try:
        await eventually(lambda: one_waits_and_seven_run(edges), what="seven run, and one more waits")
        continued = await edges.turn(1, simulate="events=1", previous_response_id=response_id)
        most = (await streams_seen(edges))["most"]
    finally:
        for turn in running:
            turn.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    assert events_of(continued.text)[-1]["type"] == "response.completed"
    assert most == ALL_SEATS


async def test_turns_that_leave_make_room_for_those_that_wait(edges):
    held = [asyncio.create_task(edges.turn(number, simulate="hang")) for number in range(ORDINARY_SEATS)]
    await eventually(lambda: seats(edges, held=ORDINARY_SEATS), what="all ordinary seats are held")
    waiting = [asyncio.create_task(edges.turn(number, simulate="events=1")) for number in range(20)]
    await eventually(lambda: seats(edges, waiting=20), what="twenty wait")
    for turn in held:
        turn.cancel()
    answers = await asyncio.gather(*waiting)

    assert {answer.status_code for answer in answers} == {200}
    assert (await streams_seen(edges))["most"] == ORDINARY_SEATS


async def occupancy_while_somebody_waits(edges):
    """Returns how much of the ordinary seats was held, weighted by time, from the first waiter to the last."""
    held_seconds = waited_seconds = 0.0
    await eventually(lambda: somebody_waits(edges), what="somebody waits")
    before = time.monotonic()
    while (streams := await resource(edges)).waiting:
        now = time.monotonic()
        held_seconds += min(streams.held, ORDINARY_SEATS) / ORDINARY_SEATS * (now - before)
        waited_seconds += now - before
        before = now
        await asyncio.sleep(0.01)
    return held_seconds / waited_seconds


async def somebody_waits(edges):
    return (await resource(edges)).waiting > 0


async def one_waits_and_seven_run(edges):
    return (await streams_seen(edges)).get("now") == ORDINARY_SEATS and await seats(edges, waiting=1)


async def seats(edges, **expected):
    streams = await resource(edges)
    return all(getattr(streams, name) == value for name, value in expected.items())


async def resource(edges):
    state = await edges.system.state()
    return next(found for found in state.resources if found.name == edges.streams)


async def total_overdraft(edges):
    return sum(found.overdraft for found in (await edges.system.state()).resources)


async def streams_seen(edges):
    """Returns what the simulator counted of the account's streams: it has one account only."""
    streams = (await edges.system.operator.simulate("GET", "/__simulate/stats"))["streams"]
    return next(iter(streams.values()), {"now": 0, "most": 0})
