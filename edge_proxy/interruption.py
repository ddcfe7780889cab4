"""A block that somebody else may end, with an error of their choice: the client has left, the time to drain is over.

Cancellation carries no reason in asyncio, so the reason is kept here, and a cancellation by anybody else stays one.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from edge_proxy.errors import EdgeError


class Interruption:
    """`async with Interruption() as block: …`; `block.interrupt(error)` makes it raise `error`. The first one wins."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._error: EdgeError | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        return self

    def interrupt(self, error: EdgeError) -> None:
        """Ends the block at its next await. Does nothing outside the block."""
        if self._task is not None and self._error is None:
            self._error = error
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._error is None or task is None:
            return
        if kind is None:  # the block ended before the cancellation was delivered: take delivery here
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if task.uncancel() == 0 and (kind is None or kind is asyncio.CancelledError):
            raise self._error from raised
