"""The composition root: everything is built here, once, and handed to whoever needs it. And the ASGI application."""

import time
from collections.abc import Callable
from typing import Any, Self

import orjson
from prometheus_client import CollectorRegistry

from admission_client.lease import Admission
from edge_proxy.access import AccessLog, Sink, through_structlog
from edge_proxy.attempts import RetryBudget
from edge_proxy.body import BodyReader, ByteBudget
from edge_proxy.control import ControlApi
from edge_proxy.drain import Drain
from edge_proxy.line import LineParts
from edge_proxy.metrics import EdgeMetrics
from edge_proxy.pool_usage import PoolUsage
from edge_proxy.proxy import HttpProxy
from edge_proxy.settings import EdgeSettings
from edge_proxy.upstream import Upstream
from edge_proxy.websocket import SocketProxy

_JSON = [(b"content-type", b"application/json")]
_READY_RETRY = 2


class EdgeApp:
    """The edge as an ASGI application. Use it as a block inside the running loop."""

    def __init__(
        self,
        settings: EdgeSettings,
        admission: Admission,
        registry: CollectorRegistry,
        *,
        access_sink: Sink = through_structlog,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.drain = Drain()
        self._admission = admission
        self._is_over = is_over
        self._was_ready = False
        self._upstream = Upstream(settings)
        self._control = ControlApi(settings.control_url) if settings.control_url else None
        self._pool = PoolUsage(self._control, time.monotonic)
        metrics = EdgeMetrics(registry)
        budget = ByteBudget(settings.body_budget // settings.workers, on_change=metrics.body_bytes.set)
        access = AccessLog(metrics, time.monotonic, access_sink)
        retries = RetryBudget(settings.retry_budget, per=60.0, clock=time.monotonic)
        self._sockets = SocketProxy(
            LineParts(
                settings=settings,
                admission=admission,
                upstream=self._upstream,
                retries=retries,
                budget=budget,
                metrics=metrics,
                access=access,
                drain=self.drain,
                clock=time.monotonic,
            )
        )
        self._http = HttpProxy(
            settings=settings,
            admission=admission,
            upstream=self._upstream,
            control=self._control,
            pool=self._pool,
            bodies=BodyReader(budget, timeout=settings.body_timeout, progress_timeout=settings.body_progress_timeout),
            retries=retries,
            metrics=metrics,
            access=access,
            drain=self.drain,
            clock=time.monotonic,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._pool.close()
        await self._upstream.close()
        if self._control is not None:
            await self._control.close()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answers one ASGI connection."""
        if scope["type"] == "http" and scope["path"].startswith("/health/"):
            await self._health(scope["path"], send)
            return
        self._note_readiness()  # an outage may come before anybody asks
        try:
            if scope["type"] == "http":
                await self._http.serve(scope, receive, send)
            elif scope["type"] == "websocket":
                await self._sockets.serve(scope, receive, send)
        finally:
            self._note_readiness()

    async def _health(self, path: str, send: Any) -> None:
        status, word = 404, "unknown"
        if path == "/health/live":
            status, word = 200, "ok"
        elif path == "/health/ready":
            status, word = (200, "ready") if self.ready else (503, "not ready")
        content = orjson.dumps({"status": word})
        headers = [*_JSON, (b"content-length", b"%d" % len(content))]
        if status == 503:
            headers.append((b"retry-after", b"%d" % _READY_RETRY))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    @property
    def ready(self) -> bool:
        """Whether this edge has had a session and a policy once, is not draining, and was not replaced by another."""
        self._note_readiness()
        return self._was_ready and not self.drain.begun.is_set() and not self._is_over()

    def _note_readiness(self) -> None:
        self._was_ready = self._was_ready or self._admission.ready
