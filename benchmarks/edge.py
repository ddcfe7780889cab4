"""What the edge costs: CPU of a small turn, a streamed event, a WebSocket turn and a refusal, and how long that takes.

All processes of a system run on core 0, the simulator and this client on core 1. `thin` (see `thin.py`) takes turns
with the edge, with the same client and the same upstream: machines and hours differ, their ratio in one run differs
little. `python -m benchmarks.edge`.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import uvloop
from websockets.asyncio.client import connect

from benchmarks.lean_http import Answer, Connection, post
from benchmarks.processes import CLIENT_CORE, SERVER_CORE, cpu_seconds, free_port, pin, wait_until_listening
from benchmarks.report import Report
from benchmarks.turns import BODY, OURS
from demo.operator import Operator
from demo.ports import Ports
from demo.services import SystemOptions
from demo.stack import Stack

CPU_US_A_TURN = 500
CPU_US_AN_EVENT = 80
CPU_US_A_SOCKET_TURN = 200
REFUSALS_A_SECOND = 8_000
REFUSAL_P99_MS = 50
GOODPUT_PERCENT = 95

_PATH = "/backend-api/codex/responses"
_SOCKET_BETA = "responses_websockets=2026-02-06"
_LANE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How hard the two are driven."""

    rounds: int = 3
    turns: int = 2000
    callers: int = 32
    streams: int = 50
    sockets: int = 50
    socket_turns: int = 20
    storm_callers: int = 500
    storm_seconds: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """One of the two: where it listens, what its client must send, and the processes that it consists of."""

    name: str
    port: int
    headers: dict[str, str]
    pids: dict[str, int]

    def request(self, simulate: str) -> bytes:
        """Returns a turn for it."""
        return post(_PATH, {**self.headers, "content-type": "application/json", "x-simulate": simulate}, _CONTENT)

    def cpu(self) -> dict[str, float]:
        """Returns the CPU seconds of its processes so far."""
        return {name: cpu_seconds(pid) for name, pid in self.pids.items()}


_CONTENT = orjson.dumps(BODY)


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of one thing done: by the proxy itself, and by all processes together."""

    alone: float
    together: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What refusals cost, and what came of the streams that were admitted meanwhile."""

    cost: Cost
    refused: float
    """A second."""
    p50: float
    p99: float
    goodput: float
    """Part of the streams that an undisturbed lane would have finished."""


async def _cost(proxy: Proxy, work: Awaitable[int]) -> Cost:
    before = proxy.cpu()
    done = await work
    used = {name: cpu - before[name] for name, cpu in proxy.cpu().items()}
    return Cost(next(iter(used.values())) / done, sum(used.values()) / done)


# --- The four loads. Each returns how many things were done.


async def _turns(proxy: Proxy, turns: int, callers: int, simulate: str = "events=1") -> int:
    request = proxy.request(simulate)
    numbers = iter(range(turns))

    async def call() -> None:
        with _connection(proxy) as connection:
            for _ in numbers:
                _must_have_completed(proxy, await connection.ask(request))

    await asyncio.gather(*(call() for _ in range(callers)))
    return turns


async def _stream_events(proxy: Proxy, streams: int) -> int:
    request = proxy.request("slow=0.01,events=92")

    async def stream() -> int:
        with _connection(proxy) as connection:
            answer = await connection.ask(request)
            _must_have_completed(proxy, answer)
            return answer.body.count(b"event: ")

    return sum(await asyncio.gather(*(stream() for _ in range(streams))))


async def _socket_turns(proxy: Proxy, sockets: int, turns: int) -> int:
    headers = {**proxy.headers, "x-simulate": "events=1", "openai-beta": _SOCKET_BETA}
    frame = orjson.dumps({"type": "response.create", **{k: v for k, v in BODY.items() if k != "stream"}}).decode()

    async def converse() -> None:
        uri = f"ws://127.0.0.1:{proxy.port}{_PATH}"
        async with connect(uri, additional_headers=headers, compression=None, proxy=None) as socket:
            for _ in range(turns):
                await socket.send(frame)
                while not (came := str(await socket.recv())).startswith('{"type":"response.completed"'):
                    if came.startswith('{"type":"error"'):
                        raise RuntimeError(f"{proxy.name} answered {came}")

    await asyncio.gather(*(converse() for _ in range(sockets)))
    return sockets * turns


async def _storm(proxy: Proxy, callers: int, seconds: float) -> Storm:
    request = proxy.request("slow=0.1,events=2")
    alone = statistics.median(await asyncio.gather(*(_duration(proxy, request) for _ in range(_LANE))))
    waits: list[float] = []
    admitted: list[tuple[float, float]] = []
    """When each began, and when it was over."""
    ends = time.perf_counter() + seconds

    async def call() -> None:
        with _connection(proxy) as connection:
            while time.perf_counter() < ends:
                asked = time.perf_counter()
                answer = await connection.ask(request)
                if answer.status == 429:
                    waits.append(answer.total)
                else:
                    _must_have_completed(proxy, answer)
                    admitted.append((asked, time.perf_counter()))

    async def storm() -> int:
        await asyncio.gather(*(call() for _ in range(callers)))
        return len(admitted) + len(waits)

    cost = await _cost(proxy, storm())
    waits.sort()
    # What is under way when the storm is over counts by how far it has come.
    done = sum(min(1.0, (ends - began) / (over - began)) for began, over in admitted)
    return Storm(
        cost=cost,
        refused=len(waits) / seconds,
        p50=waits[len(waits) // 2],
        p99=waits[int(len(waits) * 0.99)],
        goodput=done / (_LANE * seconds / alone),
    )


async def _duration(proxy: Proxy, request: bytes) -> float:
    with _connection(proxy) as connection:
        return (await connection.ask(request)).total


@contextlib.contextmanager
def _connection(proxy: Proxy) -> Iterator[Connection]:
    connection = Connection(proxy.port)
    try:
        yield connection
    finally:
        connection.close()


def _must_have_completed(proxy: Proxy, answer: Answer) -> None:
    if answer.status != 200 or b"response.completed" not in answer.body:
        raise RuntimeError(f"{proxy.name} answered {answer.status}: {answer.body[:300]!r}")


# --- The two proxies.


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[Proxy, Proxy, Operator]]:
    """Runs a system, and `thin` before the same simulator."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as directory:
        options = SystemOptions(
            directory=Path(directory), ports=Ports.free(), environment={"SLUICEGATE_SIMULATOR_EVENT_DELAY": "0"}
        )
        async with Stack(options) as stack, Operator(stack.endpoints, stack.secrets.admin_token) as operator:
            for name in stack.services:
                pin(CLIENT_CORE if name == "upstream_simulator" else SERVER_CORE, stack.pid(name))
            pin(CLIENT_CORE)
            for _ in range(4):
                await operator.add_chatgpt_account()
            for resource in ("accounts/-/streams", "accounts/-/response_creates"):
                await operator.set_limit(resource, limit=0)
            key = (await operator.create_key("benchmark")).key
            edge = Proxy(
                name="edge",
                port=options.ports.edge,
                headers={"authorization": f"Bearer {key}"},
                pids={name: stack.pid(name) for name in OURS},
            )
            async with _thin(options.ports.simulator, operator) as thin:
                yield edge, thin, operator


@contextlib.asynccontextmanager
async def _thin(upstream: int, operator: Operator) -> AsyncIterator[Proxy]:
    made = await operator.simulate("POST", "/__simulate/accounts", {"kind": "chatgpt"})
    tokens = made["auth_json"]["tokens"]
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.thin", str(port), f"http://127.0.0.1:{upstream}", str(_LANE)]
    process = subprocess.Popen(command, start_new_session=True)  # noqa: ASYNC220 (it takes no time worth waiting for)
    try:
        pin(SERVER_CORE, process.pid)
        wait_until_listening(process, port)
        yield Proxy(
            name="thin",
            port=port,
            headers={
                "authorization": f"Bearer {tokens['access_token']}",
                "chatgpt-account-id": tokens["account_id"],
            },
            pids={"thin": process.pid},
        )
    finally:
        process.terminate()
        process.wait()


# --- What comes out.


async def run(report: Report, load: Load) -> None:
    """Measures, and reports what came out."""
    async with running() as (edge, thin, operator):
        both = (edge, thin)
        for proxy in both:
            await _turns(proxy, load.callers * 10, load.callers)
        for section in _sections(load):
            report.section(section.title)
            await _compare(report, both, load.rounds, section)
        await operator.set_limit("lanes/proxy_http", limit=_LANE)
        report.section(f"A storm: {load.storm_callers} callers on a lane of {_LANE} that try again at once")
        for proxy in both:
            _report_storm(report, proxy, await _storm(proxy, load.storm_callers, load.storm_seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    title: str
    unit: str
    goal: float
    """Microseconds of CPU."""
    work: Callable[[Proxy], Awaitable[int]]


def _sections(load: Load) -> list[_Section]:
    return [
        _Section(
            title=f"Small turns over HTTP: 9 events in one piece, {load.callers} callers",
            unit="a turn",
            goal=CPU_US_A_TURN,
            work=lambda proxy: _turns(proxy, load.turns, load.callers),
        ),
        _Section(
            title=f"Token streams: 100 events 10 ms apart, {load.streams} streams at once",
            unit="an event",
            goal=CPU_US_AN_EVENT,
            work=lambda proxy: _stream_events(proxy, load.streams),
        ),
        _Section(
            title=f"WebSocket turns: 11 frames each, {load.sockets} sockets, their handshakes included",
            unit="a turn",
            goal=CPU_US_A_SOCKET_TURN,
            work=lambda proxy: _socket_turns(proxy, load.sockets, load.socket_turns),
        ),
    ]


async def _compare(report: Report, both: Sequence[Proxy], rounds: int, section: _Section) -> None:
    costs: dict[str, list[Cost]] = {proxy.name: [] for proxy in both}
    for _ in range(rounds):
        for proxy in both:
            costs[proxy.name].append(await _cost(proxy, section.work(proxy)))
    alone = {name: 1e6 * statistics.median(cost.alone for cost in found) for name, found in costs.items()}
    together = 1e6 * statistics.median(cost.together for cost in costs["edge"])
    report.at_most(f"CPU µs {section.unit}, edge alone", alone["edge"], goal=section.goal)
    report.line(
        f"all of ours {together:.0f} µs; thin {alone['thin']:.0f} µs; edge ÷ thin {alone['edge'] / alone['thin']:.1f}"
    )


def _report_storm(report: Report, proxy: Proxy, storm: Storm) -> None:
    if proxy.name == "edge":
        report.rate("refusals a second", storm.refused, goal=REFUSALS_A_SECOND)
        report.at_most("p99 of a refusal, ms", 1e3 * storm.p99, goal=REFUSAL_P99_MS)
        report.rate("goodput of those admitted, %", 100 * storm.goodput, goal=GOODPUT_PERCENT)
    report.line(
        f"{proxy.name}: {storm.refused:,.0f} refusals/s, p50 {1e3 * storm.p50:.1f} ms, p99 {1e3 * storm.p99:.1f} ms, "
        f"goodput {100 * storm.goodput:.0f} %, CPU a request {1e6 * storm.cost.alone:.0f} µs, "
        f"with the other processes {1e6 * storm.cost.together:.0f} µs"
    )


def main(arguments: list[str]) -> None:
    """Measures with the load that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edge", description=__doc__)
    parser.add_argument("--rounds", type=int, default=Load().rounds)
    uvloop.run(run(Report(), Load(rounds=parser.parse_args(arguments).rounds)))


if __name__ == "__main__":
    main(sys.argv[1:])
