"""A timeout for the many short waits of one task, with one timer for all of them.

`asyncio.timeout` costs 5.5 µs a use, and a stream needs two for every event: together an eighth of what an event
costs. Here a wait notes its deadline, and a timer that rings early goes back to sleep until the deadline of that time.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Patience:
    """Bounds waits of one task, one after another. Close it when the task is through with them."""

    __slots__ = ("_deadline", "_handle", "_loop", "_rings_at", "_struck", "_task")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._deadline: float | None = None
        self._struck = False

    async def wait(self, awaitable: Awaitable[T], *, within: float) -> T:
        """Returns the result. Raises `TimeoutError` after `within` seconds; what was waited for is cancelled then."""
        self._deadline = deadline = self._loop.time() + within
        if self._handle is None or self._rings_at > deadline:
            self._arm(deadline)
        self._task = asyncio.current_task()
        try:
            return await awaitable
        except asyncio.CancelledError:
            # Only our own cancellation is a timeout; when somebody else cancelled as well, that one wins.
            if self._struck and self._task is not None and self._task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._deadline = None
            self._struck = False

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
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._arm(self._deadline)
        elif self._task is not None:
            self._struck = True
            self._task.cancel()
