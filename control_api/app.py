"""Composition root: builds every part, gives each what it needs, starts the workers, and hands out the application.

Order of a request: body limit → admin gate → dashboard lane → route. Nothing here decides anything.
"""

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import structlog
from fastapi import APIRouter, FastAPI, Security
from fastapi.middleware import Middleware
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from admission_client.lease import Admission
from admission_client.policy import AccountSignal
from admission_client.session import AdmissionClient
from admission_client.sync import SyncClient
from control_api.accounts.routes import account_routes
from control_api.accounts.service import AccountService
from control_api.auth import AdminGate, AdminToken, FailureLimit, load_admin_token
from control_api.body_limit import BodyLimit
from control_api.changes import PolicyChanges
from control_api.controller_lock import ControllerLock
from control_api.dashboard_lane import LANE, DashboardLane
from control_api.database import Database
from control_api.errors import describe_problems, install_error_handlers, problem_responses
from control_api.keys.routes import key_routes
from control_api.keys.service import KeyService
from control_api.limits.routes import limit_routes
from control_api.limits.service import LimitService
from control_api.local_seats import LocalSeats
from control_api.metrics import Metrics
from control_api.push.service import PolicyReader
from control_api.push.worker import PolicyPusher
from control_api.settings import ControlSettings
from control_api.vault import Vault
from control_api.workers import Workers
from service_runtime.process import StartupError
from service_runtime.tls import TlsFiles, channel_credentials
from service_runtime.version import VERSION

log = structlog.get_logger(__name__)
CLIENT_PATHS = frozenset({"/api/codex/usage"})
"""Paths below `/api/` that clients with an API key may read, through the edge."""


@dataclass(frozen=True, slots=True)
class Control:
    """A running control API, without its HTTP server."""

    app: FastAPI
    metrics: Metrics
    workers: Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Services:
    database: Database
    changes: PolicyChanges
    accounts: AccountService
    keys: KeyService
    limits: LimitService
    metrics: Metrics


@asynccontextmanager
async def open_control(settings: ControlSettings) -> AsyncIterator[Control]:
    """Builds and starts everything; stops it in order when the block ends. Raises `StartupError`."""
    async with AsyncExitStack() as stack:
        services, lock, term = await _open_services(settings, stack)
        link = _link_of(settings)
        admission = await stack.enter_async_context(
            AdmissionClient(link.target, link.token, f"{link.instance}/control", credentials=link.credentials)
        )
        sync = await stack.enter_async_context(
            SyncClient(link.target, link.token, link.instance, term, on_signals=_ignore, credentials=link.credentials)
        )
        services.changes.watch(lambda: sync.connected)
        reader = PolicyReader(
            database=services.database,
            accounts=services.accounts,
            keys=services.keys,
            limits=services.limits,
            weights=_Equal(),
        )
        pusher = PolicyPusher(changes=services.changes, reader=reader, sink=sync, metrics=services.metrics)
        workers = Workers()
        stack.push_async_callback(workers.stop)
        workers.start("controller lock", lock.keep())
        workers.start("push", pusher.run())
        app = _application(
            services, admission=admission, admin_token=load_admin_token(settings.admin_token, settings.data_dir)
        )
        yield Control(app=app, metrics=services.metrics, workers=workers)


@dataclass(frozen=True, slots=True)
class _Link:
    target: str
    token: str
    instance: str
    credentials: grpc.ChannelCredentials | None


def _link_of(settings: ControlSettings) -> _Link:
    files = TlsFiles(
        certificate=settings.admission_tls_certificate,
        key=settings.admission_tls_key,
        authority=settings.admission_tls_authority,
    )
    try:
        credentials = channel_credentials(files)
    except OSError as error:
        raise StartupError(f"cannot read the TLS files of the admission server: {error}") from None
    return _Link(
        target=settings.admission_target,
        token=settings.admission_token.get_secret_value(),
        instance=settings.instance or socket.gethostname(),
        credentials=credentials,
    )


async def _open_services(settings: ControlSettings, stack: AsyncExitStack) -> tuple[_Services, ControllerLock, int]:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = Database(settings.effective_database_url)
    except OSError as error:
        raise StartupError(f"cannot use the data directory {settings.data_dir}: {error}") from None
    stack.push_async_callback(database.close)
    vault = Vault.open(key=settings.vault_key, key_file=settings.effective_key_file)
    await database.migrate()
    lock = ControllerLock(database, ttl=settings.lock_ttl)
    term = await lock.take()
    stack.push_async_callback(lock.give_back)
    changes, metrics = PolicyChanges(), Metrics()
    limits = LimitService(database=database, changes=changes, seeds=settings.limit_seeds())
    await limits.load()
    accounts = AccountService(
        database=database,
        vault=vault,
        changes=changes,
        upstream_base_url=settings.upstream_base_url,
        allow_private=settings.allow_private_upstreams,
    )
    await accounts.adopt_settings()
    keys = KeyService(database=database, changes=changes)
    services = _Services(
        database=database, changes=changes, accounts=accounts, keys=keys, limits=limits, metrics=metrics
    )
    return services, lock, term


def _application(services: _Services, *, admission: Admission, admin_token: str) -> FastAPI:
    changes = services.changes
    app = FastAPI(
        title="Sluicegate control API",
        version=VERSION,
        summary="Accounts, keys, limits and usage of a Sluicegate installation.",
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(BodyLimit),
            Middleware(AdminGate, token=AdminToken(admin_token), failures=FailureLimit(), open_paths=CLIENT_PATHS),
            Middleware(DashboardLane, admission=admission, local=LocalSeats(_limit_of(services.limits, LANE))),
        ],
        redirect_slashes=False,
    )
    install_error_handlers(app)
    admin = APIRouter(
        dependencies=[Security(HTTPBearer(auto_error=False, description="The admin token."))],
        responses=problem_responses(400, 401, 422, 429, 503, 507),
    )
    for routes in (
        account_routes(services.accounts, changes),
        key_routes(services.keys, changes),
        limit_routes(services.limits, changes),
    ):
        admin.include_router(routes)
    app.include_router(admin)
    app.include_router(_health_routes(services.database))
    describe_problems(app)
    return app


class _Health(BaseModel):
    status: str = "ok"


def _health_routes(database: Database) -> APIRouter:
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live", summary="Whether the process runs")
    async def live() -> _Health:
        return _Health()

    @router.get("/ready", summary="Whether the database answers", responses=problem_responses(503))
    async def ready() -> _Health:
        await database.ping()
        return _Health()

    return router


def _limit_of(limits: LimitService, name: str) -> Callable[[], int]:
    return lambda: limits.current.resources[name].limit


async def _ignore(_signals: Sequence[AccountSignal]) -> None:
    return None


class _Equal:
    async def weights(self) -> Mapping[str, float]:
        return {}
