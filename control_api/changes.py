"""What has changed since the last push: one number that grows, and who waits for it.

Services mark a change after their commit; the push worker takes the number, reads the whole state and pushes it; a
request that wants its change in force before it answers waits here, for a short while only.
"""

import asyncio
import time
from collections.abc import Callable

from control_api.errors import PolicyNotAccepted

START_GRACE = 2.0
"""How long after the start a connection to the admission server is waited for, in seconds."""


class PolicyChanges:
    """Couples the services, which change the state, with the worker that pushes it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._is_reachable: Callable[[], bool] = lambda: True
        self._wanted = 1
        self._pushed = 0
        self._version: int | None = None
        self._moved = asyncio.Event()
        self._settled: set[asyncio.Future[None]] = set()

    @property
    def version(self) -> int | None:
        """The policy version that the admission server applied last; None when it has applied none of ours."""
        return self._version

    def watch(self, is_reachable: Callable[[], bool]) -> None:
        """Says how to find out whether the admission server is there, so that nobody waits for one that went away."""
        self._is_reachable = is_reachable

    def mark(self) -> None:
        """Says that something which the admission server must know has been committed."""
        self._wanted += 1
        self._moved.set()

    async def take(self) -> int:
        """Waits until there is something to push, and returns its number for `done`."""
        while self._wanted == self._pushed:
            self._moved.clear()
            await self._moved.wait()
        return self._wanted

    def done(self, number: int, version: int) -> None:
        """Says that the state as of `number` is in force as `version`."""
        self._pushed = max(self._pushed, number)
        self._version = version
        for waiter in self._settled:
            if not waiter.done():
                waiter.set_result(None)
        self._settled.clear()

    def refused(self, number: int, error: PolicyNotAccepted) -> None:
        """Says that the admission server does not take the state as of `number`; the version before stays in force."""
        self._pushed = max(self._pushed, number)
        for waiter in self._settled:
            if not waiter.done():
                waiter.set_exception(error)
        self._settled.clear()

    async def settle(self, within: float) -> int | None:
        """Waits until everything marked so far is in force. Returns its version, or None when that takes too long.

        Raises `PolicyNotAccepted` when the admission server refuses it.
        """
        if not self._is_reachable():
            # Just started, it may be there in a moment; later on nobody waits for a server that is away.
            within = min(within, self._started + START_GRACE - self._clock())
        if within <= 0:
            return None
        target = self._wanted
        try:
            async with asyncio.timeout(within):
                while self._pushed < target:
                    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._settled.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._settled.discard(waiter)
        except TimeoutError:
            return None
        return self._version
