"""One worker: an admission session, an ASGI application, and uvicorn on a socket that somebody has opened for it.

The end comes in order: drain with the listener open, then uvicorn's own shutdown, then the admission session closes and
all seats are back.
"""

import asyncio
import gc
import logging
import socket
import sys

import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from admission_client.session import AdmissionClient
from edge_proxy.access import json_lines, through_structlog
from edge_proxy.app import EdgeApp
from edge_proxy.settings import EdgeSettings
from edge_proxy.supervisor import address_of
from service_runtime.http_head import bounded_head
from service_runtime.http_server import HttpServer
from service_runtime.process import StartupError
from service_runtime.tls import channel_credentials

log = structlog.get_logger(__name__)

_CHATTY = ("uvicorn.error", "websockets.client", "websockets.server")
_CLIENT_KEEPALIVE = 75
_LAST_WORDS = 5


async def serve_worker(
    settings: EdgeSettings, slot: int, listener: socket.socket, registry: CollectorRegistry, stop: asyncio.Event
) -> None:
    """Serves until `stop` is set, then drains. The listener is closed at the end."""
    # Requests leave nothing to the collector, but there are many at once, and each of its rounds visits them all: a
    # twelfth of what a refusal costs in a storm of them.
    gc.set_threshold(20_000, 20, 20)
    for name in _CHATTY:  # they tell of every socket that opens and closes; the access log does that better
        logging.getLogger(name).setLevel(logging.WARNING)
    instance = f"{settings.instance}/{slot}"
    access_sink = through_structlog if sys.stderr.isatty() else json_lines(sys.stderr.buffer, service="edge_proxy")
    token = settings.admission_token.get_secret_value()
    try:
        credentials = channel_credentials(settings.admission_tls)
    except (OSError, ValueError) as error:
        raise StartupError(f"cannot use the TLS files of the admission server: {error}") from None
    async with (
        AdmissionClient(settings.admission_target, token, instance, credentials=credentials) as admission,
        EdgeApp(
            settings, admission, registry, access_sink=access_sink, is_over=lambda: admission.ended is not None
        ) as app,
    ):
        server = HttpServer(server_config(app, settings))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        log.info("edge serves", instance=instance, address=address_of(listener))
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                ended_early = await app.drain.run(settings.drain_timeout)
                log.info("edge drained", instance=instance, ended_early=ended_early)
        finally:
            stopping.cancel()
            server.should_exit = True
            await serving


def server_config(app: EdgeApp, settings: EdgeSettings) -> uvicorn.Config:
    """Returns uvicorn's configuration: no logs, no compression and no headers of its own."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded_head(limit=settings.head_limit, timeout=settings.head_timeout),
        ws="websockets-sansio",
        ws_max_size=settings.frame_limit,
        ws_per_message_deflate=False,
        ws_ping_interval=20.0,
        ws_ping_timeout=60.0,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_CLIENT_KEEPALIVE,
        timeout_graceful_shutdown=_LAST_WORDS,
        backlog=4096,
    )
