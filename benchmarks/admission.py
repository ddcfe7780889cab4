"""The admission server, measured: bare ledger, real gRPC, Redis beside it, heartbeats, memory. Prints as it goes.

Server and client have a core each. Rates of different sections compare only within one run: machines drift.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import redis.asyncio

from admission_client.rpc import open_channel
from admission_client.session import AdmissionClient
from admission_client.sync import SyncClient
from benchmarks import bare_ledger, over_grpc
from benchmarks.holder_heartbeat import holder_heartbeat_costs
from benchmarks.load import Cycle, Result, closed_loop
from benchmarks.processes import CONTROL_TOKEN, EDGE_TOKEN, Server, admission_server, pin_client, redis_server
from benchmarks.redis_semaphore import Coalescer, connection_per_caller
from benchmarks.report import Report

CALLERS = (1, 16, 128, 512)
AT = 128
HEARTBEAT_SIZES = (100, 10_000, 100_000)


async def run(report: Report, *, seconds: float) -> None:
    """Measures everything, about twenty times `seconds` plus preparations."""
    pin_client()
    _bare_ledger(report, seconds)
    with admission_server() as server:
        await _over_grpc(report, server, seconds)
    _heartbeats(report)


def _bare_ledger(report: Report, seconds: float) -> None:
    report.section("Bare ledger (no gRPC)")
    report.rate("one-lease cycles", bare_ledger.cycles_per_second(seconds=seconds), goal=100_000)
    report.rate("turns: lane, then stage and account of 50", bare_ledger.turns_per_second(seconds=seconds), goal=30_000)
    report.at_most("bytes a held lease", bare_ledger.bytes_per_lease(leases=50_000), goal=1_024)


async def _over_grpc(report: Report, server: Server, seconds: float) -> None:
    report.section("Through real gRPC, a core each: acquire, answer, release")
    async with _policy_in_force(server), AdmissionClient(server.target, EDGE_TOKEN, "bench-stream") as client:
        await client.wait_until_ready(10)
        results = await _ladder(report, server, "stream", over_grpc.stream_cycle(client), seconds)
        turns = await closed_loop(
            over_grpc.stream_turn(client), callers=AT, seconds=seconds, server_cpu=server.cpu_seconds
        )
        report.line(f"turns  {turns}")
        channel = open_channel(server.target, None)
        try:
            await _ladder(report, server, "unary ", await over_grpc.unary_cycle(channel, EDGE_TOKEN), seconds)
        finally:
            await channel.close(None)
        await _beside_redis(report, server, over_grpc.stream_cycle(client), seconds)
    report.section("What was to be reached over the stream")
    report.rate(f"one-lease cycles, {AT} callers", results[AT].cycles, goal=40_000)
    report.at_most(f"acquire p99 in ms, {AT} callers", results[AT].p99 * 1e3, goal=4.0)
    report.at_most("acquire p50 in ms, one caller", results[1].p50 * 1e3, goal=0.5)
    report.rate(f"turns in the edge's pattern, {AT} callers", turns.cycles, goal=10_000)


async def _ladder(report: Report, server: Server, name: str, cycle: Cycle, seconds: float) -> dict[int, Result]:
    results = {}
    for callers in CALLERS:
        results[callers] = await closed_loop(cycle, callers=callers, seconds=seconds, server_cpu=server.cpu_seconds)
        report.line(f"{name} {results[callers]}")
    return results


@contextlib.asynccontextmanager
async def _policy_in_force(server: Server) -> AsyncIterator[None]:
    async def ignore(_signals: Sequence[object]) -> None:
        pass

    async with SyncClient(server.target, CONTROL_TOKEN, "bench", 1, on_signals=ignore) as sync:
        await sync.update(over_grpc.policy(), timeout=10)
        yield


async def _beside_redis(report: Report, server: Server, stream: Cycle, seconds: float) -> None:
    """Takes turns with Redis, three rounds, so that whatever else the machine does meets all alike."""
    report.section("The same semaphore as a Lua script in Redis, in turns with ours; medians of three rounds")
    try:
        with redis_server() as redis_process:
            clients = [redis.asyncio.Redis(port=redis_process.port, single_connection_client=True) for _ in range(AT)]
            coalescer = Coalescer(clients[0])
            sending = asyncio.create_task(coalescer.run())
            contenders = {
                "our stream": (stream, server),
                "Redis, a connection a caller": (await connection_per_caller(clients), redis_process),
                "Redis, coalesced": (coalescer.cycle, redis_process),
            }
            rounds: dict[str, list[Result]] = {name: [] for name in contenders}
            for _ in range(3):
                for name, (cycle, process) in contenders.items():
                    rounds[name].append(
                        await closed_loop(cycle, callers=AT, seconds=seconds, server_cpu=process.cpu_seconds)
                    )
            coalescer.stop()
            await sending
            for client in clients:
                await client.aclose()
    except FileNotFoundError as missing:
        report.line(f"skipped: {missing}")
        return
    medians = {name: sorted(results, key=lambda result: result.cycles)[1] for name, results in rounds.items()}
    for name, result in medians.items():
        report.line(f"{name:<29}{result}")
    ours, apart, together = (result.cycles for result in medians.values())
    report.rate("our stream ÷ Redis, a connection a caller", ours / apart, goal=6.0)
    report.rate("our stream ÷ Redis, coalesced", ours / together, goal=2.5)


def _heartbeats(report: Report) -> None:
    report.section("A heartbeat, by leases held")
    for name, costs in (
        ("ledger", bare_ledger.heartbeat_costs(HEARTBEAT_SIZES)),
        ("client", holder_heartbeat_costs(HEARTBEAT_SIZES)),
    ):
        for cost in costs:
            report.line(f"{name} {cost.leases:>8,} leases {cost.microseconds:8.2f} µs")
        growth = costs[-1].microseconds / costs[0].microseconds
        report.at_most(f"{name}: {HEARTBEAT_SIZES[-1]:,} ÷ {HEARTBEAT_SIZES[0]}", growth, goal=1.2)
