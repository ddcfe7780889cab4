"""The composition root: builds everything, passes it on, and runs it until it is asked to stop."""

import asyncio
import contextlib
import gc
import time
from random import Random

import grpc
import grpc.aio
import structlog
from admission.v1 import (
    admission_service_pb2,
    admission_service_pb2_grpc,
    control_service_pb2,
    control_service_pb2_grpc,
    state_service_pb2,
    state_service_pb2_grpc,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, start_http_server

from admission_server.control_servicer import ControlServicer
from admission_server.decoding import DecodingInterceptor
from admission_server.delivery import Delivery
from admission_server.errors import Draining, StateUnwritable
from admission_server.key_usage import KeyUsageBoard
from admission_server.ledger import Ledger, Terms
from admission_server.metrics import LedgerMetrics, LoopLag
from admission_server.registry import Registry, RegistryError
from admission_server.roles import CONTROLLERS, HOLDERS, RoleInterceptor, RoleTokens, TokensFileError
from admission_server.servicer import AdmissionServicer
from admission_server.settings import AdmissionSettings
from admission_server.signals import SignalBoard
from admission_server.state_servicer import StateServicer
from admission_server.ticker import Ticker
from service_runtime.process import StartupError
from service_runtime.tls import server_credentials
from service_runtime.version import VERSION

log = structlog.get_logger(__name__)

ADMISSION = admission_service_pb2.DESCRIPTOR.services_by_name["AdmissionService"].full_name
CONTROL = control_service_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name
STATE = state_service_pb2.DESCRIPTOR.services_by_name["StateService"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

LATE = 0.25
"""How late the loop may run before queries are refused."""
LARGEST_MESSAGE = 16 * 1024 * 1024
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class AdmissionServer:
    """One admission server: start it, wait, stop it. `port` and `metrics_port` are the ports it listens on."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self.port = 0
        self.metrics_port = 0
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Begins to serve. Raises `StartupError`, and then nothing is left open."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        settings = self._settings
        try:
            roles = RoleTokens.from_file(settings.tokens_file)  # type: ignore[arg-type]  # the settings insist on it
            self._registry = Registry.open(settings.state_dir)
        except (TokensFileError, RegistryError) as error:
            raise StartupError(str(error)) from None
        self._stack.callback(self._registry.close)
        random = Random()  # noqa: S311  # it spreads load, it keeps no secret
        terms = Terms(
            ttl=settings.session_ttl,
            grace=settings.grace,
            heartbeat=settings.heartbeat_every,
            session_leases=settings.session_leases,
        )
        self.ledger = Ledger(
            epoch=self._registry.epoch,
            clock=time.monotonic,
            random=random,
            terms=terms,
            remembered=self._registry.remembered,
        )
        self._lag = LoopLag()
        self._background: set[asyncio.Task[None]] = set()
        self._delivery = Delivery(self.ledger, remember=self._remember_soon)
        self._signals = signals = SignalBoard()
        key_usage = KeyUsageBoard()
        self._health = HealthServicer()
        self._server = self._build_server(roles)
        self._add_services(roles, signals, key_usage, random)
        self.port = self._listen()
        await self._health.set(ADMISSION, _NOT_SERVING)
        await self._server.start()
        self._stack.push_async_callback(self._server.stop, 0)
        self._serve_metrics(signals)
        # Leases are many and live long: without this, every full collection visits all of them.
        gc.set_threshold(50_000, 20, 100)
        ticker = Ticker(ledger=self.ledger, delivery=self._delivery, lag=self._lag)
        self.ticker = asyncio.create_task(ticker.run())
        log.info(
            "serving",
            port=self.port,
            metrics_port=self.metrics_port or None,
            epoch=self.ledger.epoch,
            recovering=len(self.ledger.recovering),
        )

    async def stop(self) -> None:
        """Stops in order: no longer healthy, waiters answered, streams closed. Sessions stay remembered."""
        await self._health.enter_graceful_shutdown()
        self.ledger.drain()
        self._delivery.deliver()
        self._controllers.close()
        for stream in self._delivery.streams():
            stream.finish(Draining("the server is stopping", retry_after=1.0))
        await self._server.stop(self._settings.drain_timeout)
        self.ticker.cancel()
        await asyncio.wait({self.ticker, *self._background})
        await self._try_to_remember()
        await self._stack.aclose()
        log.info("stopped", sessions=len(self.ledger.sessions))

    def _build_server(self, roles: RoleTokens) -> grpc.aio.Server:
        open_services = {HEALTH, STATE, reflection.SERVICE_NAME} if self._settings.open_state else set[str]()
        return grpc.aio.server(
            interceptors=(
                RoleInterceptor(
                    roles,
                    permissions={ADMISSION: HOLDERS, CONTROL: CONTROLLERS},
                    open_services=frozenset(open_services),
                ),
                DecodingInterceptor(),
            ),
            options=(
                ("grpc.max_receive_message_length", LARGEST_MESSAGE),
                ("grpc.max_send_message_length", LARGEST_MESSAGE),
                # Holders find out within seconds that we are gone; gRPC's default calls that too many pings.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.so_reuseport", 0),
            ),
        )

    def _add_services(self, roles: RoleTokens, signals: SignalBoard, key_usage: KeyUsageBoard, random: Random) -> None:
        version = VERSION
        admission_service_pb2_grpc.add_AdmissionServiceServicer_to_server(
            AdmissionServicer(
                ledger=self.ledger,
                delivery=self._delivery,
                signals=signals,
                key_usage=key_usage,
                roles=roles,
                remember=self._remember,
                random=random,
            ),
            self._server,
        )
        self._controllers = ControlServicer(
            ledger=self.ledger,
            delivery=self._delivery,
            signals=signals,
            key_usage=key_usage,
            version=version,
            on_policy=self._note_policy,
        )
        control_service_pb2_grpc.add_ControlServiceServicer_to_server(self._controllers, self._server)
        state_service_pb2_grpc.add_StateServiceServicer_to_server(
            StateServicer(
                ledger=self.ledger,
                delivery=self._delivery,
                version=version,
                is_overloaded=lambda: self._lag.current > LATE,
            ),
            self._server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((ADMISSION, CONTROL, STATE, HEALTH, reflection.SERVICE_NAME), self._server)

    def _listen(self) -> int:
        settings = self._settings
        address = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
        try:
            credentials = server_credentials(settings.tls)
        except (OSError, ValueError) as error:
            raise StartupError(f"TLS: {error}") from None
        try:
            if credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise StartupError(f"cannot listen on {address}: {error}") from None

    def _serve_metrics(self, signals: SignalBoard) -> None:
        settings = self._settings
        if not settings.metrics_port:
            return
        registry = CollectorRegistry()
        LedgerMetrics.register(registry, self.ledger, signals, self._lag)
        try:
            server, thread = start_http_server(settings.metrics_port, settings.metrics_host, registry)
        except OSError as error:
            raise StartupError(f"cannot serve metrics on port {settings.metrics_port}: {error}") from None
        self.metrics_port = server.server_port

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._stack.callback(close)

    async def _note_policy(self) -> None:
        self._lag.policy_applied_at = self.ledger.now()
        if self.ledger.catalogue.version and not self.ledger.draining:
            await self._health.set(ADMISSION, _SERVING)

    async def _remember(self) -> None:
        try:
            await self._registry.save(self._open_sessions)
        except OSError as error:
            # A session that a restart would not know of must not be granted anything.
            log.error("cannot remember sessions", problem=str(error))
            raise StateUnwritable("the server cannot write down who is here", retry_after=5.0) from None

    async def _try_to_remember(self) -> None:
        with contextlib.suppress(StateUnwritable):
            await self._remember()

    def _remember_soon(self) -> None:
        task = asyncio.create_task(self._try_to_remember())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _open_sessions(self) -> dict[str, str]:
        """Returns who is to be remembered: those who are here, and those who are missing since the last restart."""
        return self.ledger.recovering | {s.session_id: s.instance for s in self.ledger.sessions.values()}


async def serve(settings: AdmissionSettings, stop: asyncio.Event) -> None:
    """Runs an admission server until `stop` is set."""
    server = AdmissionServer(settings)
    await server.start()
    stopped = asyncio.create_task(stop.wait())
    # Without its ticker a server would never take a seat back: it is better restarted.
    await asyncio.wait({stopped, server.ticker}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    await server.stop()
    if not server.ticker.cancelled():
        server.ticker.result()
