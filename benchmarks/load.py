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

    def __str__(self) -> str:
        return (
            f"{self.callers:>5} callers {self.cycles:>9,.0f}/s   "
            f"acquire p50 {self.p50 * 1e3:6.2f} ms  p99 {self.p99 * 1e3:6.2f} ms"
        )


async def closed_loop(cycle: Cycle, *, callers: int, seconds: float) -> Result:
    """Runs the callers for a warm-up and then for `seconds`."""
    waits: list[float] = []
    began = time.perf_counter() + WARM_UP
    ends = began + seconds

    async def caller(number: int) -> None:
        n = 0
        while (now := time.perf_counter()) < ends:
            wait = await cycle(number, n)
            n += 1
            if now >= began:
                waits.append(wait)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    waits.sort()
    return Result(
        callers=callers,
        cycles=len(waits) / seconds,
        p50=waits[len(waits) // 2],
        p99=waits[int(len(waits) * 0.99)],
    )
