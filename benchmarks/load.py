"""Callers in a closed loop: each takes a seat, gives it back and begins again. Counts cycles, times each acquire."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

WARM_UP = 0.5

Cycle = Callable[[int, int], Awaitable[float]]
"""One cycle of caller m, its n-th: returns how many seconds the acquire took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a number of callers got done together."""

    callers: int
    cycles: float
    """A second."""
    p50: float
    p99: float
    """Seconds that an acquire took."""
    client_cpu: float
    server_cpu: float
    """Seconds of CPU a cycle, on either side."""

    def __str__(self) -> str:
        return (
            f"{self.callers:>5} callers {self.cycles:>9,.0f}/s   "
            f"acquire p50 {self.p50 * 1e3:6.2f} ms  p99 {self.p99 * 1e3:6.2f} ms   "
            f"CPU a cycle: client {self.client_cpu * 1e6:6.1f} µs, server {self.server_cpu * 1e6:6.1f} µs"
        )


async def closed_loop(cycle: Cycle, *, callers: int, seconds: float, server_cpu: Callable[[], float]) -> Result:
    """Runs the callers for a warm-up and then for `seconds`. `server_cpu` tells the CPU time of the server so far."""
    waits: list[float] = []
    cycles = 0
    cpu = time.process_time(), server_cpu()
    began = time.perf_counter() + WARM_UP
    ends = began + seconds

    async def caller(number: int) -> None:
        nonlocal cycles
        n = 0
        while (now := time.perf_counter()) < ends:
            wait = await cycle(number, n)
            n += 1
            cycles += 1
            if now >= began:
                waits.append(wait)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    waits.sort()
    return Result(
        callers=callers,
        cycles=len(waits) / seconds,
        p50=waits[len(waits) // 2],
        p99=waits[int(len(waits) * 0.99)],
        client_cpu=(time.process_time() - cpu[0]) / cycles,
        server_cpu=(server_cpu() - cpu[1]) / cycles,
    )
