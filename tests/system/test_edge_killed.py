"""The seats of an edge that was killed come back: within TTL and grace by themselves, at once when it restarts."""

import asyncio
import contextlib

import httpx
import pytest_asyncio
from admission.v1 import state_service_pb2

from tests.system.running import eventually

TTL, GRACE = 4.0, 2.0
ENVIRONMENT = {"SLUICEGATE_ADMISSION_SESSION_TTL": str(TTL)}


@pytest_asyncio.fixture(loop_scope="session")
async def three_open_streams(system):
    await eventually(system.nothing_is_held, what="every seat is free")
    async with contextlib.AsyncExitStack() as streams:
        for _ in range(3):
            await streams.enter_async_context(system.open_turn(simulate="hang"))
        yield
        with contextlib.suppress(httpx.HTTPError):
            await streams.aclose()


async def test_without_a_restart_all_seats_are_back_within_ttl_and_grace(system, three_open_streams):
    before = await system.held("lanes/proxy_http")
    await system.stack.kill("edge_proxy")
    at_once = await system.held("lanes/proxy_http")
    started = asyncio.get_running_loop().time()
    await eventually(system.nothing_is_held, within=TTL + GRACE + 3, what="all seats are back")
    took = asyncio.get_running_loop().time() - started
    await system.stack.start("edge_proxy")
    await system.stack.wait_ready("edge_proxy")

    assert (before, at_once) == (3, 3)
    assert took < TTL + GRACE + 1


async def test_with_a_restart_all_seats_are_back_as_soon_as_it_says_hello(system, three_open_streams):
    old = {lease.session_id for lease in await system.leases()}
    await system.stack.kill("edge_proxy")
    await system.stack.start("edge_proxy")
    await eventually(lambda: a_new_session(system, old), what="the new edge has a session")
    left = await system.leases()
    await system.stack.wait_ready("edge_proxy")
    answer = await system.turn()

    assert left == []
    assert answer.status_code == 200


async def test_an_edge_that_stops_in_order_gives_its_seats_back_at_once(system):
    await system.turn()
    status = await system.stack.terminate("edge_proxy")

    assert status == 0
    assert (await system.state()).sessions == 1 or not await system.leases()
    await system.stack.start("edge_proxy")
    await system.stack.wait_ready("edge_proxy")


async def a_new_session(system, old):
    async with system.state_service() as service:
        sessions = (await service.ListSessions(state_service_pb2.ListSessionsRequest())).sessions
    return any(item.role == "edge" and item.session_id not in old for item in sessions)
