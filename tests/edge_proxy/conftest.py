"""Fixtures: an upstream that does as told, accounts at it, and an edge in front of it."""

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack

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
def free_ports() -> list[int]:
    """Ports on which nobody listens, all different."""
    with ExitStack() as probes:
        found = []
        for _ in range(3):
            probe = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            found.append(int(probe.getsockname()[1]))
        return found


@pytest.fixture
def free_port(free_ports: list[int]) -> int:
    """A port on which nobody listens."""
    return free_ports[0]
