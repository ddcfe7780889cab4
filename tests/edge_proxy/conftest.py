"""Fixtures: an upstream that does as told, accounts at it, and an edge in front of it."""

import socket
from collections.abc import AsyncIterator

import pytest

from admission_client.lease import AccountKind
from admission_client.memory import MemoryAdmission
from tests.edge_proxy.running import RunningEdge, accounts, running_edge
from tests.edge_proxy.scripted_upstream import TURN, ScriptedUpstream, scripted_upstream, stream


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with scripted_upstream() as running:
        running.script(stream(*TURN))
        yield running


@pytest.fixture
def admission(upstream: ScriptedUpstream) -> MemoryAdmission:
    """One `chatgpt` account."""
    return MemoryAdmission(accounts=accounts(upstream.url, AccountKind.CHATGPT))


@pytest.fixture
async def edge(admission: MemoryAdmission) -> AsyncIterator[RunningEdge]:
    async with running_edge(admission) as running:
        yield running


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
