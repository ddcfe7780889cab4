"""The HTTP server of the processes that have one: uvicorn, which leaves signals to `run_service`."""

import contextlib
from collections.abc import Iterator

import uvicorn


class HttpServer(uvicorn.Server):
    """Uvicorn without signal handlers of its own: signals are the process's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signal handlers alone."""
        yield
