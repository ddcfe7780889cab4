"""Several workers behind one port: starts them, restarts what dies, sums their metrics, and stops them in order.

The listening socket is opened once and inherited, so that a restarted worker takes over connections that wait in its
queue. A worker whose supervisor vanishes sees a pipe close, and stops.
"""

import asyncio
import os
import socket
import sys
import tempfile
import threading
from asyncio.subprocess import Process

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from edge_proxy.settings import EdgeSettings
from service_runtime.process import StartupError

log = structlog.get_logger(__name__)

SLOT_VARIABLE = "SLUICEGATE_EDGE_WORKER"
"""Set for workers only: `<slot>:<fd of the listener>:<fd of the pipe>`."""
METRICS_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_RESTART_PAUSE = 0.2
_GRACE = 15.0


class Supervisor:
    """Runs the workers of one edge."""

    def __init__(self, settings: EdgeSettings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener

    async def run(self, stop: asyncio.Event) -> None:
        """Keeps all workers running until `stop` is set, then stops them and waits for their drain."""
        with tempfile.TemporaryDirectory(prefix="sluicegate-edge-metrics-") as folder:
            server, thread = start_metrics(self._settings, _summed(folder))
            pipe_read, pipe_write = os.pipe()
            try:
                async with asyncio.TaskGroup() as group:
                    for slot in range(self._settings.workers):
                        group.create_task(self._keep(slot, folder, pipe_read, stop))
            finally:
                os.close(pipe_write)
                os.close(pipe_read)
                self._listener.close()
                stop_metrics(server, thread)

    async def _keep(self, slot: int, folder: str, pipe: int, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                worker = await self._start(slot, folder, pipe)
                died = asyncio.create_task(worker.wait())
                await asyncio.wait({died, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    await self._stop(worker, died)
                else:
                    log.error("edge worker died and is restarted", slot=slot, status=worker.returncode)
                    await asyncio.sleep(_RESTART_PAUSE)
                mark_process_dead(worker.pid, folder)  # type: ignore[no-untyped-call]  # no types there
        finally:
            stopping.cancel()

    async def _start(self, slot: int, folder: str, pipe: int) -> Process:
        listener = self._listener.fileno()
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edge_proxy",
            pass_fds=(listener, pipe),
            env={
                **os.environ,
                SLOT_VARIABLE: f"{slot}:{listener}:{pipe}",
                METRICS_FOLDER_VARIABLE: folder,
                # The default is the host's name; the workers must agree on it whatever it changes to.
                "SLUICEGATE_EDGE_INSTANCE": self._settings.instance,
            },
        )

    async def _stop(self, worker: Process, died: "asyncio.Task[int]") -> None:
        if worker.returncode is None:
            worker.terminate()
        done, _ = await asyncio.wait({died}, timeout=self._settings.drain_timeout + _GRACE)
        if not done:
            worker.kill()
            await died


def _summed(folder: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]  # prometheus_client has no types here
    return registry


def start_metrics(settings: EdgeSettings, registry: CollectorRegistry) -> tuple[object, threading.Thread]:
    """Serves a registry on the metrics port. Raises `StartupError`."""
    try:
        return start_http_server(settings.metrics_port, addr=settings.metrics_host, registry=registry)
    except OSError as error:
        raise _unusable(settings.metrics_host, settings.metrics_port, error) from error


def stop_metrics(server: object, thread: threading.Thread) -> None:
    """Stops serving it."""
    server.shutdown()  # type: ignore[attr-defined]  # prometheus_client declares too little
    server.server_close()  # type: ignore[attr-defined]  # as above
    thread.join(timeout=1)


def listen(settings: EdgeSettings) -> socket.socket:
    """Opens the edge's port. Raises `StartupError`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(4096)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _unusable(settings.host, settings.port, error) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Returns host and port of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unusable(host: str, port: int, error: OSError) -> StartupError:
    return StartupError(f"port {port} on {host} cannot be used: {error.strerror}")
