"""Whatever happens to turns, every seat comes back: 2,000 of them, over HTTP and WebSocket, many of which end badly.

Clients leave in the middle, upstreams cut, fail and fall silent, turns are cancelled, and in the first part workers are
killed. At the end nothing is held, nothing runs, no connection is left, and memory has not grown.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import pytest_asyncio
import websockets.asyncio.client
from websockets.exceptions import WebSocketException

from tests.system.running import TURN, RunningSystem, eventually

ENVIRONMENT = {"SLUICEGATE_EDGE_WORKERS": "2", "SLUICEGATE_SIMULATOR_EVENT_DELAY": "0.001"}
SEED = 20261122
CALLERS = 24
TURNS_WITH_KILLS = 600
TURNS_TO_WARM_UP = 400
TURNS_TO_MEASURE = 1000
KILLS = 3
ACCOUNTS = 40
TURNS_PER_SOCKET = 4
MEMORY_GROWTH_MIB = 8.0
PATH = "/backend-api/codex/responses"

# What the upstream does, and how often. Those that hang are ended by their clients. Failures that count against an
# account are few, so that there are always accounts to go on with.
HTTP_FATES = {
    "events=3": 50,
    "events=200": 10,
    "events=3,cut=4": 3,
    "cut=0": 5,
    "fail=3,code=server_error": 2,
    "eof-without-terminal": 2,
    "status=400": 5,
    "hang": 12,
    "hang=0": 8,
}
SOCKET_FATES = {
    "events=3": 60,
    "events=200": 10,
    "events=3,cut=6": 2,
    "close=1011,cut=3": 2,
    "fail=4": 2,
    "status=400": 5,
    "hang": 12,
}
PATIENCE = {0.02: 5, 0.2: 5, 20.0: 90}
PATIENCE_WHEN_IT_HANGS = 0.2

T = TypeVar("T")

pytestmark = pytest.mark.timeout(180)


@pytest_asyncio.fixture(autouse=True, loop_scope="session", scope="module")
async def accounts(system: RunningSystem):
    """Enough accounts that those which failed too often leave others to go on with."""
    for _ in range(ACCOUNTS - 1):
        await system.operator.add_chatgpt_account()


async def test_nothing_leaks_whatever_happens_to_turns(system: RunningSystem):
    fates = random.Random(SEED)
    crowd = Crowd(system, fates)

    async with asyncio.TaskGroup() as both:
        killing = both.create_task(kill_workers_now_and_then(system, fates))
        both.create_task(crowd.live_through(TURNS_WITH_KILLS, until=killing))
    await crowd.live_through(TURNS_TO_WARM_UP)
    await everything_is_over(system)
    before = footprints(system)
    await crowd.live_through(TURNS_TO_MEASURE)
    await everything_is_over(system)
    after = footprints(system)

    assert crowd.ends["completed"] > 600, crowd.ends
    assert after.keys() == before.keys()
    for name, footprint in after.items():
        assert footprint.mib - before[name].mib < MEMORY_GROWTH_MIB, name
        # Upstream connections are kept for a while, so that there are as many as turns at once, but not more.
        assert footprint.descriptors - before[name].descriptors <= CALLERS, name


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process takes: resident memory, and open files and sockets."""

    mib: float
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return cls(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(list(Path(f"/proc/{pid}/fd").iterdir())))


class Crowd:
    """Clients whose turns end in all sorts of ways. It counts how."""

    def __init__(self, system: RunningSystem, fates: random.Random) -> None:
        self._system = system
        self._fates = fates
        self._edge = f"http://127.0.0.1:{system.ports.edge}"
        self.ends: Counter[str] = Counter()

    async def live_through(self, turns: int, *, until: asyncio.Task[None] | None = None) -> None:
        """Runs that many turns, and more until the task is done."""
        left = iter(range(turns))

        async def caller() -> None:
            for _ in left:
                await self._one()
            while until is not None and not until.done():
                await self._one()

        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(caller())

    async def _one(self) -> None:
        kind: Callable[[], Coroutine[Any, Any, str]] = self._fates.choice((self._over_http, self._over_socket))
        try:
            end = await kind()
        except TimeoutError:
            end = "gave up"
        except (httpx.HTTPError, WebSocketException, OSError) as broken:
            end = type(broken).__name__
        self.ends[end] += 1

    async def _over_http(self) -> str:
        fate = self._drawn(HTTP_FATES)
        async with self._patience(fate), httpx.AsyncClient(trust_env=False, verify=False, timeout=30) as client:
            headers = {**self._system.headers, "x-simulate": fate}
            async with client.stream("POST", self._edge + PATH, json=TURN, headers=headers) as answer:
                if answer.status_code != 200:
                    return str(answer.status_code)
                leaves_after = self._drawn({0: 5, 500: 5, 10**9: 90})
                seen = b""
                async for chunk in answer.aiter_raw():
                    seen += chunk
                    if len(seen) > leaves_after:
                        return "left"
        return "completed" if b"response.completed" in seen else "failed"

    async def _over_socket(self) -> str:
        uri = self._edge.replace("http", "ws") + PATH
        async with websockets.asyncio.client.connect(
            uri, additional_headers=self._system.headers, proxy=None, close_timeout=1
        ) as socket:
            for _ in range(self._fates.randint(1, TURNS_PER_SOCKET)):
                fate = self._drawn(SOCKET_FATES)
                frame = {**TURN, "type": "response.create", "client_metadata": {"x-simulate": fate}}
                async with self._patience(fate):
                    await socket.send(json.dumps(frame))
                    end = await self._terminal(socket)
                if self._fates.random() < 0.1:
                    socket.transport.abort()
                    return "dropped"
        return end

    async def _terminal(self, socket: websockets.asyncio.client.ClientConnection) -> str:
        async for frame in socket:
            kind = json.loads(frame)["type"]
            if kind == "response.completed":
                return "completed"
            if kind in {"response.failed", "response.incomplete", "error"}:
                return "failed"
        return "closed"

    def _patience(self, fate: str) -> asyncio.Timeout:
        """Returns how long the client waits: one that gives up is cancelled wherever it is."""
        return asyncio.timeout(PATIENCE_WHEN_IT_HANGS if "hang" in fate else self._drawn(PATIENCE))

    def _drawn(self, weights: Mapping[T, int]) -> T:
        return self._fates.choices(list(weights), list(weights.values()))[0]


async def kill_workers_now_and_then(system: RunningSystem, fates: random.Random) -> None:
    """Kills one worker of the edge after another, each in the middle of turns, and waits until it was replaced."""
    for _ in range(KILLS):
        await eventually(lambda: runs_at_least(system, 4), what="turns run")
        workers = children_of(system.stack.pid("edge_proxy"))
        os.kill(fates.choice(workers), signal.SIGKILL)
        await eventually(partial(replaced, system, workers), what="the worker is replaced")


async def everything_is_over(system: RunningSystem) -> None:
    """Waits until nobody holds anything: no lease, no stream, no socket, no connection of a client."""
    await eventually(system.nothing_is_held, within=25, what="every seat is free")
    await eventually(lambda: runs_at_most(system, 0), what="no stream and no socket is left upstream")
    await eventually(lambda: connections(system.ports.edge, at_most=0), what="no client is connected")
    await eventually(lambda: none_in_flight(system), what="the edge serves nobody")


async def runs_at_least(system: RunningSystem, count: int) -> bool:
    return sum(await running(system)) >= count


async def runs_at_most(system: RunningSystem, count: int) -> bool:
    return sum(await running(system)) <= count


async def running(system: RunningSystem) -> tuple[int, int]:
    stats = await system.operator.simulate("GET", "/__simulate/stats")
    streams, sockets = (sum(gauge["now"] for gauge in stats[kind].values()) for kind in ("streams", "sockets"))
    return streams, sockets


async def replaced(system: RunningSystem, workers: list[int]) -> bool:
    now = children_of(system.stack.pid("edge_proxy"))
    return len(now) == len(workers) and now != workers


async def none_in_flight(system: RunningSystem) -> bool:
    """Returns whether the edge's own count of requests and sockets, over all its workers, is zero."""
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(f"http://127.0.0.1:{system.ports.edge_metrics}/metrics")).text
    counts = [line.split()[-1] for line in metrics.splitlines() if line.startswith("sluicegate_edge_in_flight{")]
    return bool(counts) and all(float(count) == 0 for count in counts)


async def connections(port: int, *, at_most: int) -> bool:
    """Returns whether no more connections than that are established at a local port."""
    established, suffix = "01", f":{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return sum(line[1].endswith(suffix) and line[3] == established for line in lines) <= at_most


def footprints(system: RunningSystem) -> dict[str, Footprint]:
    """Returns what each edge worker and the admission server take."""
    workers = {f"edge worker {pid}": pid for pid in children_of(system.stack.pid("edge_proxy"))}
    processes = {**workers, "admission_server": system.stack.pid("admission_server")}
    return {name: Footprint.of(pid) for name, pid in processes.items()}


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return []
