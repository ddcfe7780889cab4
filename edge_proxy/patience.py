"""A timeout for the many short waits of one exchange, with one timer for all of them.

`asyncio.timeout` costs 5.5 µs a use, and a stream needs two for every event: together an eighth of what an event
costs. Here a wait notes its deadline, and a timer that rings early goes back to sleep until the next deadline.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Patience:
    """Bounds waits: of one task one after another, of several at once. Close it when all are through with them."""

    __slots__ = ("_deadlines", "_handle", "_loop", "_rings_at", "_struck")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadlines: dict[asyncio.Task[object] | None, float] = {}
        self._struck: set[asyncio.Task[object] | None] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    async def wait(self, awaitable: Awaitable[T], *, within: float) -> T:
        """Returns the result. Raises `TimeoutError` after `within` seconds; what was waited for is cancelled then."""
        task = asyncio.current_task(self._loop)
        self._deadlines[task] = deadline = self._loop.time() + within
        if self._handle is None or self._rings_at > deadline:
            self._arm(deadline)
        try:
            return await awaitable
        except asyncio.CancelledError:
            # Only our own cancellation is a timeout; when somebody else cancelled as well, that one wins.
            if task in self._struck and task is not None and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._deadlines.pop(task, None)
            self._struck.discard(task)

    def close(self) -> None:
        """Stops the timer."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, when: float) -> None:
        self.close()
        self._rings_at = when
        self._handle = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._handle = None
        now = self._loop.time()
        for task in [task for task, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[task]
            self._struck.add(task)
            if task is not None:
                task.cancel()
        if self._deadlines:
            self._arm(min(self._deadlines.values()))
