"""Composition root: builds every part, gives each what it needs, starts the workers, and hands out the application.

Order of a request: body limit → admin gate → dashboard lane → route. Nothing here decides anything.
"""

import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import httpx
import structlog
from fastapi import APIRouter, FastAPI, Security
from fastapi.middleware import Middleware
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from admission_client.lease import Admission
from admission_client.session import AdmissionClient
from admission_client.state import StateReader
from admission_client.sync import SyncClient
from control_api.accounts.addresses import CheckedTransport
from control_api.accounts.login import LoginService
from control_api.accounts.oauth import AuthServer
from control_api.accounts.routes import account_routes, login_routes
from control_api.accounts.service import AccountService, stores_tokens
from control_api.auth import AdminGate, AdminToken, FailureLimit, load_admin_token
from control_api.body_limit import BodyLimit
from control_api.changes import PolicyChanges
from control_api.controller_lock import LOCK_TABLE, ControllerLock
from control_api.dashboard_lane import LANE, DashboardLane
from control_api.database import Database
from control_api.errors import DatabaseError, describe, install_error_handlers, problem_responses
from control_api.examples import answer_examples
from control_api.keys.routes import key_routes
from control_api.keys.service import KeyService, digest_of
from control_api.keys.usage import KeyUsageService
from control_api.limits.routes import limit_routes
from control_api.limits.service import LimitService
from control_api.local_seats import LocalSeats
from control_api.metrics import Metrics
from control_api.push.routes import state_routes
from control_api.push.service import PolicyReader
from control_api.push.signals import SignalReceiver
from control_api.push.worker import PolicyPusher
from control_api.refresh.routes import refresh_routes
from control_api.refresh.service import STAGE, RefreshService
from control_api.refresh.worker import RefreshWorker
from control_api.settings import ControlSettings
from control_api.usage.queries import UsageQueries
from control_api.usage.routes import CLIENT_PATHS, client_usage_routes, usage_routes
from control_api.usage.service import UsageService
from control_api.usage.worker import UsageWorker
from control_api.vault import Vault
from control_api.workers import Workers
from service_runtime.process import StartupError
from service_runtime.tls import channel_credentials
from service_runtime.version import VERSION

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Control:
    """A running control API, without its HTTP server."""

    app: FastAPI
    metrics: Metrics
    workers: Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Store:
    """What works without anybody else: the database and the services that only need it."""

    database: Database
    vault: Vault
    changes: PolicyChanges
    accounts: AccountService
    keys: KeyService
    key_usage: KeyUsageService
    limits: LimitService
    metrics: Metrics
    lock: ControllerLock
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Services:
    """What talks to upstreams and to admission."""

    refresh: RefreshService
    refresh_worker: RefreshWorker
    usage: UsageService
    queries: UsageQueries
    logins: LoginService


@asynccontextmanager
async def open_control(settings: ControlSettings) -> AsyncIterator[Control]:
    """Builds and starts everything; stops it in order when the block ends. Raises `StartupError`."""
    async with AsyncExitStack() as stack:
        store = await _open_store(settings, stack)
        link = _link_of(settings)
        admission = await stack.enter_async_context(
            AdmissionClient(link.target, link.token, f"{link.instance}/control", credentials=link.credentials)
        )
        services = await _open_services(settings, store, admission, stack)
        signals = SignalReceiver(
            database=store.database,
            accounts=store.accounts,
            usage=services.usage,
            changes=store.changes,
            wake_refresh=services.refresh_worker.wake,
            ask_usage=services.queries.ask_soon,
            metrics=store.metrics,
        )
        sync = await stack.enter_async_context(
            SyncClient(
                link.target,
                link.token,
                link.instance,
                store.term,
                on_signals=signals.receive,
                on_key_signals=store.key_usage.receive,
                credentials=link.credentials,
            )
        )
        store.changes.watch(lambda: sync.connected)
        state = await stack.enter_async_context(
            StateReader(link.target, token=link.token, credentials=link.credentials)
        )
        workers = await stack.enter_async_context(Workers())
        _start_workers(workers, settings, store, services, sync)
        app = _application(
            store,
            services,
            admission=admission,
            state=state_routes(state, sync),
            admin_token=load_admin_token(settings.admin_token, settings.data_dir),
        )
        yield Control(app=app, metrics=store.metrics, workers=workers)


async def _open_store(settings: ControlSettings, stack: AsyncExitStack) -> _Store:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = Database(settings.effective_database_url)
    except OSError as error:
        raise StartupError(f"cannot use the data directory {settings.data_dir}: {error}") from None
    stack.push_async_callback(database.close)
    try:
        if not await database.has_table(LOCK_TABLE):
            await database.migrate()
        lock = ControllerLock(database, ttl=settings.lock_ttl)
        term = await lock.take()
        stack.push_async_callback(lock.give_back)
        # Only who holds the lock changes a schema that exists: another version may be running on it.
        await database.migrate()
    except DatabaseError as error:
        raise StartupError(f"cannot use the database: {error}") from error
    vault = await _open_vault(settings, database)
    changes = PolicyChanges()
    limits = LimitService(database=database, changes=changes, seeds=settings.limit_seeds())
    await limits.load()
    accounts = AccountService(
        database=database,
        vault=vault,
        changes=changes,
        upstream_base_url=settings.upstream_base_url,
        private_hosts=settings.private_hosts,
    )
    await accounts.adopt_settings()
    return _Store(
        database=database,
        vault=vault,
        changes=changes,
        accounts=accounts,
        keys=KeyService(database=database, changes=changes),
        key_usage=KeyUsageService(database=database),
        limits=limits,
        metrics=Metrics(),
        lock=lock,
        term=term,
    )


async def _open_vault(settings: ControlSettings, database: Database) -> Vault:
    # A key is made for a new installation only: with a second one, every account that is stored would be lost.
    path = settings.effective_key_file
    if settings.vault_key is None and not path.exists() and await stores_tokens(database):
        raise StartupError(
            f"{path} is missing, and another key than a new one has encrypted the stored tokens: put it back"
        )
    return Vault.open(key=settings.vault_key, key_file=path)


async def _open_services(
    settings: ControlSettings, store: _Store, admission: Admission, stack: AsyncExitStack
) -> _Services:
    # Redirects are never followed: an upstream must not be able to send tokens elsewhere.
    client = await stack.enter_async_context(
        httpx.AsyncClient(
            transport=CheckedTransport(httpx.AsyncHTTPTransport, private_hosts=settings.private_hosts),
            headers={"user-agent": f"sluicegate/{VERSION}"},
            follow_redirects=False,
            trust_env=False,
        )
    )
    auth_server = AuthServer(client, settings.auth_base_url)
    refresh = RefreshService(
        database=store.database,
        accounts=store.accounts,
        changes=store.changes,
        auth_server=auth_server,
        admission=admission,
        local_seats=LocalSeats(_limit_of(store.limits, STAGE)),
        metrics=store.metrics,
    )
    stack.push_async_callback(refresh.close)
    usage = UsageService(database=store.database, accounts=store.accounts, changes=store.changes)
    stack.push_async_callback(usage.close)
    queries = UsageQueries(
        database=store.database,
        accounts=store.accounts,
        usage=usage,
        changes=store.changes,
        client=client,
        refresher=refresh.refresh,
        metrics=store.metrics,
    )
    stack.push_async_callback(queries.close)
    logins = LoginService(
        database=store.database,
        accounts=store.accounts,
        vault=store.vault,
        auth_server=auth_server,
        callback_port=settings.login_callback_port,
    )
    worker = RefreshWorker(database=store.database, refresh=refresh)
    return _Services(refresh=refresh, refresh_worker=worker, usage=usage, queries=queries, logins=logins)


def _start_workers(
    workers: Workers, settings: ControlSettings, store: _Store, services: _Services, sync: SyncClient
) -> None:
    reader = PolicyReader(
        database=store.database,
        accounts=store.accounts,
        keys=store.keys,
        limits=store.limits,
        weights=services.usage,
    )
    pusher = PolicyPusher(changes=store.changes, reader=reader, sink=sync, metrics=store.metrics)
    usage_worker = UsageWorker(
        database=store.database, usage=services.usage, queries=services.queries, interval=settings.usage_interval
    )
    workers.start("controller lock", store.lock.keep())
    workers.start("push", pusher.run())
    workers.start("refresh", services.refresh_worker.run())
    workers.start("usage", usage_worker.run())
    workers.start("logins", services.logins.run())


@dataclass(frozen=True, slots=True)
class _Link:
    target: str
    token: str
    instance: str
    credentials: grpc.ChannelCredentials | None


def _link_of(settings: ControlSettings) -> _Link:
    try:
        credentials = channel_credentials(settings.admission_tls)
    except (OSError, ValueError) as error:
        raise StartupError(f"cannot use the TLS files of the admission server: {error}") from None
    return _Link(
        target=settings.admission_target,
        token=settings.admission_token.get_secret_value(),
        instance=settings.instance or socket.gethostname(),
        credentials=credentials,
    )


def _application(
    store: _Store, services: _Services, *, admission: AdmissionClient, state: APIRouter, admin_token: str
) -> FastAPI:
    changes = store.changes
    app = FastAPI(
        title="Sluicegate control API",
        version=VERSION,
        summary="Accounts, keys, limits and usage of a Sluicegate installation.",
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(BodyLimit),
            Middleware(
                AdminGate, token=AdminToken(admin_token), failures=FailureLimit(), open_paths=frozenset(CLIENT_PATHS)
            ),
            Middleware(
                DashboardLane,
                admission=admission,
                is_connected=lambda: admission.connected,
                local=LocalSeats(_limit_of(store.limits, LANE)),
                exempt=frozenset(CLIENT_PATHS),
            ),
        ],
        redirect_slashes=False,
    )
    install_error_handlers(app)
    admin = APIRouter(
        dependencies=[Security(HTTPBearer(auto_error=False, description="The admin token."))],
        responses=problem_responses(400, 401, 422, 429, 503, 507),
    )
    for routes in (
        refresh_routes(services.refresh, changes),
        account_routes(store.accounts, changes),
        login_routes(services.logins),
        key_routes(store.keys, store.key_usage, changes),
        limit_routes(store.limits, changes),
        usage_routes(services.usage, services.queries),
        state,
    ):
        admin.include_router(routes)
    app.include_router(
        client_usage_routes(
            services.usage,
            find_key=store.keys.of_digest,
            counts_of=store.key_usage.of,
            digest=digest_of,
            now=time.time,
        )
    )
    app.include_router(admin)
    app.include_router(_health_routes(store.database))
    describe(app, (*answer_examples(), _Health()))
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
