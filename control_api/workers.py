"""Background tasks of the process. A worker that ends by itself is a failure: what cannot work must not look alive."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Self


class Workers:
    """Owns the background tasks from start to stop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Starts a worker."""
        self._tasks.add(asyncio.create_task(work, name=name))

    async def failed(self) -> None:
        """Waits until a worker ends, and raises what it raised."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
            raise RuntimeError(f"the worker {task.get_name()} has ended")

    async def stop(self) -> None:
        """Cancels all workers and waits for them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
