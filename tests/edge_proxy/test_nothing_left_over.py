"""Requests are gone when they are over: what only the garbage collector could free would make it work in a storm."""

import gc
from collections.abc import Iterator

import pytest

from admission_client.memory import MemoryAdmission
from edge_proxy.exchange import Exchange
from tests.edge_proxy.running import RunningEdge, until

CODEX = "/backend-api/codex/responses"
STREAMED = {"model": "gpt-5.5", "input": [], "stream": True}


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _exchanges() -> int:
    return sum(type(found) is Exchange for found in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
async def test_a_turn_leaves_nothing_to_the_garbage_collector(edge: RunningEdge):
    async with edge.client() as client:
        answers = [await client.post(CODEX, json=STREAMED) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    await until(lambda: _exchanges() == 0)


@pytest.mark.usefixtures("no_collector")
async def test_a_refusal_leaves_nothing_to_the_garbage_collector(edge: RunningEdge, admission: MemoryAdmission):
    admission.set_limit("lanes/proxy_http", 1)
    admission.held["lanes/proxy_http"] = 1
    async with edge.client() as client:
        answers = [await client.post(CODEX, json=STREAMED) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [429, 429, 429]
    await until(lambda: _exchanges() == 0)
