"""`python -m edge_proxy`: one process for one worker, a supervisor and its workers for several."""

import asyncio
import os
import socket

from prometheus_client import CollectorRegistry

from edge_proxy.settings import EdgeSettings
from edge_proxy.supervisor import SLOT_VARIABLE, Supervisor, listen, start_metrics, stop_metrics
from edge_proxy.worker import serve_worker
from service_runtime.process import run_service


async def serve(settings: EdgeSettings, stop: asyncio.Event) -> None:
    """Serves until told to stop."""
    role = os.environ.get(SLOT_VARIABLE)
    if role:
        await _serve_slot(settings, role, stop)
        return
    listener = listen(settings)
    if settings.workers > 1:
        await Supervisor(settings, listener).run(stop)
        return
    registry = CollectorRegistry()
    server, thread = start_metrics(settings, registry)
    try:
        await serve_worker(settings, 0, listener, registry, stop)
    finally:
        stop_metrics(server, thread)


async def _serve_slot(settings: EdgeSettings, role: str, stop: asyncio.Event) -> None:
    slot, listener_fd, pipe_fd = (int(part) for part in role.split(":"))
    loop = asyncio.get_running_loop()

    def supervisor_is_gone() -> None:
        loop.remove_reader(pipe_fd)
        stop.set()

    loop.add_reader(pipe_fd, supervisor_is_gone)  # nothing is ever written to the pipe: readable means closed
    await serve_worker(settings, slot, socket.socket(fileno=listener_fd), CollectorRegistry(), stop)


if __name__ == "__main__":
    run_service("edge_proxy", EdgeSettings, serve)
