"""What a turn costs the whole system: CPU time per turn of each process, and how long clients wait.

Simulator, admission server, control API and edge run as processes on this machine; this process is the client. Turns
stream over HTTP, so the numbers hold reading, admission, sending, streaming and settling. `python -m benchmarks.turns`.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import uvloop

from benchmarks.processes import cpu_seconds
from benchmarks.report import Report
from demo.operator import Operator
from demo.ports import Ports
from demo.services import SystemOptions
from demo.stack import Stack

CPU_MS_A_TURN = 0.6
OURS = ("edge_proxy", "admission_server", "control_api")
BODY = {
    "model": "gpt-5.5",
    "instructions": "Answer briefly.",
    "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "say hi" * 200}]}],
    "store": False,
    "stream": True,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How hard the system is driven."""

    turns: int = 2000
    callers: int = 32
    deltas: int = 20
    accounts: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnCost:
    """What came out."""

    turns: int
    failed: int
    seconds: float
    cpu_ms: dict[str, float]
    """CPU milliseconds a turn, by process."""
    first_byte_ms: float
    total_ms: float
    """Medians, as clients saw them."""

    @property
    def system_cpu_ms(self) -> float:
        """CPU milliseconds a turn of all our processes together, without the simulator."""
        return sum(self.cpu_ms[name] for name in OURS)


async def measure_turns(load: Load) -> TurnCost:
    """Runs a system of its own and drives it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # the processes inherit it, and need every core there is
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as directory:
        options = SystemOptions(
            directory=Path(directory), ports=Ports.free(), environment={"SLUICEGATE_SIMULATOR_EVENT_DELAY": "0"}
        )
        async with Stack(options) as stack, Operator(stack.endpoints, stack.secrets.admin_token) as operator:
            key = await _prepare(operator, load)
            url = f"http://127.0.0.1:{options.ports.edge}/backend-api/codex/responses"
            headers = {"authorization": f"Bearer {key}", "x-simulate": f"events={load.deltas}"}
            async with aiohttp.ClientSession(
                headers=headers, connector=aiohttp.TCPConnector(limit=load.callers)
            ) as session:
                await _drive(session, url, turns=load.callers * 4, callers=load.callers)
                return await _measured(session, url, stack, load)


async def _prepare(operator: Operator, load: Load) -> str:
    for _ in range(load.accounts):
        await operator.add_chatgpt_account()
    for resource in ("accounts/-/streams", "accounts/-/response_creates"):
        await operator.set_limit(resource, limit=0)
    return (await operator.create_key("benchmark")).key


async def _measured(session: aiohttp.ClientSession, url: str, stack: Stack, load: Load) -> TurnCost:
    before = {name: cpu_seconds(stack.pid(name)) for name in stack.services}
    began = time.perf_counter()
    seen = await _drive(session, url, turns=load.turns, callers=load.callers)
    seconds = time.perf_counter() - began
    used = {name: cpu_seconds(stack.pid(name)) - before[name] for name in stack.services}
    return TurnCost(
        turns=load.turns,
        failed=sum(not turn.completed for turn in seen),
        seconds=seconds,
        cpu_ms={name: 1000 * cpu / load.turns for name, cpu in used.items()},
        first_byte_ms=1000 * statistics.median(turn.first_byte for turn in seen),
        total_ms=1000 * statistics.median(turn.total for turn in seen),
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    completed: bool
    first_byte: float
    total: float


async def _drive(session: aiohttp.ClientSession, url: str, *, turns: int, callers: int) -> list[_Seen]:
    numbers = iter(range(turns))

    async def call() -> list[_Seen]:
        return [await _turn(session, url) for _ in numbers]

    return [turn for turns_of_one in await asyncio.gather(*(call() for _ in range(callers))) for turn in turns_of_one]


async def _turn(session: aiohttp.ClientSession, url: str) -> _Seen:
    began = time.perf_counter()
    async with session.post(url, json=BODY) as answer:
        first = await answer.content.readany()
        first_byte = time.perf_counter() - began
        rest = await answer.content.read()
    completed = answer.status == 200 and b"response.completed" in first + rest
    return _Seen(completed, first_byte, time.perf_counter() - began)


async def run(report: Report, load: Load) -> None:
    """Measures, and reports what came out."""
    report.section(f"Turns over HTTP through all processes, {load.callers} callers, {load.deltas} deltas an answer")
    cost = await measure_turns(load)
    report.line(f"{cost.turns} turns, {cost.failed} of them failed; {cost.turns / cost.seconds:,.0f} a second")
    report.line(f"medians: first byte {cost.first_byte_ms:.1f} ms, whole turn {cost.total_ms:.1f} ms")
    report.at_most("CPU ms a turn, all of Sluicegate", cost.system_cpu_ms, goal=CPU_MS_A_TURN)
    for name, cpu in cost.cpu_ms.items():
        report.line(f"    {name:<20}{cpu:6.2f} ms")


def main(arguments: list[str]) -> None:
    """Measures with the load that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.turns", description=__doc__)
    standard = Load()
    parser.add_argument("--turns", type=int, default=standard.turns)
    parser.add_argument("--callers", type=int, default=standard.callers)
    parser.add_argument("--deltas", type=int, default=standard.deltas, help="text deltas in each answer")
    parser.add_argument("--accounts", type=int, default=standard.accounts)
    load = Load(**vars(parser.parse_args(arguments)))
    uvloop.run(run(Report(), load))


if __name__ == "__main__":
    main(sys.argv[1:])
