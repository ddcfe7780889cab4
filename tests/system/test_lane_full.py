"""A full lane refuses at once, says who and for how long, and admits again as soon as a seat is free."""

import asyncio
import json

import pytest_asyncio

from tests.system.running import eventually


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def two_seats(system):
    await eventually(system.nothing_is_held, what="every seat is free")
    await system.operator.set_limit("lanes/proxy_http", limit=2)
    yield
    await system.operator.set_limit("lanes/proxy_http", limit=200)


async def test_the_third_request_is_refused_with_who_and_for_how_long(system):
    async with system.open_turn(simulate="hang"), system.open_turn(simulate="hang"):
        answer = await system.turn()

    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "proxy_overloaded"
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert answer.headers["x-sluicegate-lane"] == "proxy_http"
    assert answer.headers["x-sluicegate-reason"]


async def test_it_is_refused_before_its_body_is_read(system):
    async with system.open_turn(simulate="hang"), system.open_turn(simulate="hang"):
        reader, writer = await asyncio.open_connection("127.0.0.1", system.ports.edge)
        head = (
            "POST /backend-api/codex/responses HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {system.key.key}\r\ncontent-length: 1000000\r\n\r\n"
        )
        writer.write(head.encode() + b'{"model"')
        async with asyncio.timeout(5):
            status = await reader.readline()
        writer.close()

    assert status.split()[1] == b"429"


async def test_a_client_that_hangs_up_makes_room_at_once(system):
    async with system.open_turn(simulate="hang"):
        async with system.open_turn(simulate="hang"):
            refused = await system.turn()
        await eventually(lambda: holds(system, 1), within=2, what="the seat of the stream that was left is free")
        served = await system.turn()

    assert (refused.status_code, served.status_code) == (429, 200)


async def test_a_limit_below_what_is_held_ends_nothing(system):
    async with system.open_turn(simulate="slow=0.2,events=10") as first, system.open_turn(simulate="hang"):
        await system.operator.set_limit("lanes/proxy_http", limit=1)
        refused = await system.turn()
        body = await first.aread()

    assert refused.status_code == 429
    assert json.loads(refused.text)["error"]["code"] == "proxy_overloaded"
    assert b"response.completed" in body


async def holds(system, count):
    return await system.held("lanes/proxy_http") == count
