"""The process: the application under uvicorn, metrics on their own port, both until asked to stop."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import structlog
import uvicorn
from prometheus_client import start_http_server

from admission_client.errors import TermRefused
from control_api.app import Control, open_control
from control_api.controller_lock import LockLost
from control_api.settings import ControlSettings
from service_runtime.http_head import bounded_head
from service_runtime.http_server import HttpServer
from service_runtime.process import StartupError

log = structlog.get_logger(__name__)
DRAIN_TIMEOUT = 10


async def serve(settings: ControlSettings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set. Raises `StartupError`, or whatever made a worker fail."""
    listener = _listen(settings.host, settings.port)
    try:
        async with open_control(settings) as control:
            with _metrics_server(control, settings):
                await _serve(control, listener, stop)
    finally:
        listener.close()


async def _serve(control: Control, listener: socket.socket, stop: asyncio.Event) -> None:
    config = uvicorn.Config(
        control.app,
        http=bounded_head(),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who is on this host is told by the raw peer, not by a header that anybody can write
        timeout_graceful_shutdown=DRAIN_TIMEOUT,
    )
    server = HttpServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    failing = asyncio.create_task(control.workers.failed())
    host, port = listener.getsockname()[:2]
    log.info("control API is listening", host=host, port=port)
    try:
        await asyncio.wait([serving, stopping, failing], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        if failing.done():
            _explain(failing)
    finally:
        for task in (stopping, failing):
            task.cancel()
        await asyncio.gather(stopping, failing, return_exceptions=True)


def _explain(failing: "asyncio.Task[None]") -> None:
    try:
        failing.result()
    except (LockLost, TermRefused):
        raise StartupError("another control API has taken over this installation") from None


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise StartupError(f"cannot listen on {host}:{port}: {error}; set SLUICEGATE_CONTROL_PORT") from None


@contextlib.contextmanager
def _metrics_server(control: Control, settings: ControlSettings) -> Iterator[None]:
    try:
        server, thread = start_http_server(
            settings.metrics_port, addr=settings.metrics_host, registry=control.metrics.registry
        )
    except OSError as error:
        raise StartupError(
            f"cannot serve metrics on {settings.metrics_host}:{settings.metrics_port}: {error}; "
            "set SLUICEGATE_CONTROL_METRICS_PORT"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
