"""Stopping in order. Phase one: everything new is refused, what runs may finish, what is left is told to end.

The edge drains by itself, with its listener open: uvicorn would close the listener first, and every socket with it.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge_proxy.errors import Draining, EdgeError


class Drain:
    """Knows what runs, and whether this edge is stopping."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._running: set[Callable[[EdgeError], None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def check(self) -> None:
        """Raises `Draining` once the drain has begun."""
        if self.begun.is_set():
            raise Draining

    @contextmanager
    def running(self, interrupt: Callable[[EdgeError], None]) -> Iterator[None]:
        """Counts a piece of work, and knows how to end it early."""
        self._running.add(interrupt)
        self._idle.clear()
        try:
            yield
        finally:
            self._running.discard(interrupt)
            if not self._running:
                self._idle.set()

    async def run(self, timeout: float, *, last_words: float = 5.0) -> int:
        """Drains. Returns how many had to be ended early; those have `last_words` seconds to tell their clients."""
        self.begun.set()
        if await self._idle_within(timeout):
            return 0
        left = list(self._running)
        for interrupt in left:
            interrupt(Draining("This edge is stopping and the time for running turns is over."))
        await self._idle_within(last_words)
        return len(left)

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
