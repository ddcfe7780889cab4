"""What the tests of the control API stand on: a simulator, an admission server, and the services by themselves."""

import asyncio
import concurrent.futures
import contextlib
import inspect
import os
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
from sqlmodel import select

from admission_client.memory import MemoryAdmission
from admission_client.state import StateReader
from control_api.accounts.addresses import CheckedTransport
from control_api.accounts.identity import read_auth_json
from control_api.accounts.oauth import AuthServer
from control_api.accounts.service import AccountService
from control_api.changes import PolicyChanges
from control_api.database import Database
from control_api.keys.service import KeyService
from control_api.limits.service import LimitService
from control_api.local_seats import LocalSeats
from control_api.metrics import Metrics
from control_api.refresh.models import RefreshIntent
from control_api.refresh.service import RefreshService
from control_api.usage.queries import UsageQueries
from control_api.usage.service import UsageService
from control_api.vault import Vault
from service_runtime.addresses import ALL_HOSTS
from tests.control_api.postgresql import Cluster, binaries
from tests.control_api.running import (
    ROLE,
    Process,
    eventually,
    free_port,
    running_control,
    running_simulator,
    settings_for,
)

VAULT_KEY = "3m2Jm2mQe0i0w3m8Xv5b6f1r7t9y2u4i6o8p0a1s2d0="


class Clock:
    """Unix seconds, moved by hand."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now

    def forward(self, seconds):
        self.now += seconds


@dataclass
class Parts:
    """The services, on a real database, without workers."""

    database: Database
    vault: Vault
    changes: PolicyChanges
    accounts: AccountService
    keys: KeyService
    limits: LimitService
    admission: MemoryAdmission
    auth_server: AuthServer
    refresh: RefreshService
    usage: UsageService
    queries: UsageQueries
    metrics: Metrics
    clock: Clock
    simulator: Any

    async def sign_in(self, **wish):
        """Makes an account at the simulator and imports it; returns its id here and there."""
        made = await self.simulator.account(**wish)
        imported = await self.accounts.accept(
            read_auth_json(httpx.Response(200, json=made["auth_json"]).content), source="imported"
        )
        return imported.account.id, made["id"]

    async def open_intents(self):
        async with self.database.read() as session:
            return (await session.exec(select(RefreshIntent.account_id))).all()

    async def history(self, account_id):
        lines, _ = await self.accounts.history(account_id, before=None, limit=100)
        return [line.event for line in reversed(lines)]

    def new_refresh(self, **changes):
        """Another refresh service on the same database, as after a restart."""
        arguments: dict[str, Any] = {
            "database": self.database,
            "accounts": self.accounts,
            "changes": self.changes,
            "auth_server": self.auth_server,
            "admission": self.admission,
            "local_seats": LocalSeats(lambda: 32),
            "metrics": self.metrics,
            "now": self.clock,
            "monotonic": self.clock,
        }
        return RefreshService(**(arguments | changes))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def simulator():
    async with running_simulator() as running:
        yield running


ON_BOTH = {
    f"tests.control_api.{name}"
    for name in (
        "accounts.test_login",
        "accounts.test_service",
        "keys.test_service",
        "keys.test_usage",
        "limits.test_service",
        "push.test_service",
        "refresh.test_service",
        "refresh.test_worker",
        "test_controller_lock",
        "usage.test_service",
    )
}
"""Modules whose tests run on SQLite and on PostgreSQL; but for those that look at SQLite's file themselves."""


def pytest_generate_tests(metafunc):
    on_both = "parts" in metafunc.fixturenames and metafunc.module.__name__ in ON_BOTH
    if on_both and "tmp_path" not in inspect.signature(metafunc.function).parameters:
        metafunc.parametrize("database_kind", ["sqlite", "postgresql"])


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL of our own. Without one the test skips and says why, but never in CI."""
    programs = binaries()
    if programs is None:
        message = "PostgreSQL is not installed: run `make tools` as root on Debian"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    cluster = Cluster(programs)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(scope="session")
def postgresql_template(postgresql):
    """The name of a database that has the schema, to copy for each test."""
    name = postgresql.new_database()

    async def migrate():
        database = Database(postgresql.url(name))
        await database.migrate()
        await database.close()

    # A loop of its own, in a thread: a fixture of the session must not use the loop of one test.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, migrate()).result(60)
    return name


@pytest.fixture
def database_kind():
    """Which database the parts stand on; see `ON_BOTH`."""
    return "sqlite"


@pytest.fixture
def database_url(database_kind, tmp_path, request):
    if database_kind == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'control.db'}"
        return
    cluster = request.getfixturevalue("postgresql")
    name = cluster.new_database(template=request.getfixturevalue("postgresql_template"))
    yield cluster.url(name)
    cluster.drop_database(name)


@contextlib.asynccontextmanager
async def open_parts(url, simulator, clock):
    database = Database(url)
    await database.migrate()
    vault, changes, metrics, admission = Vault(VAULT_KEY), PolicyChanges(), Metrics(), MemoryAdmission()
    accounts = AccountService(
        database=database,
        vault=vault,
        changes=changes,
        upstream_base_url=f"{simulator.url}/backend-api",
        private_hosts=ALL_HOSTS,
        now=clock,
    )
    transport = CheckedTransport(httpx.AsyncHTTPTransport, private_hosts=ALL_HOSTS)
    async with httpx.AsyncClient(transport=transport) as client:
        auth_server = AuthServer(client, simulator.url)
        refresh = RefreshService(
            database=database,
            accounts=accounts,
            changes=changes,
            auth_server=auth_server,
            admission=admission,
            local_seats=LocalSeats(lambda: 32),
            metrics=metrics,
            now=clock,
            monotonic=clock,
        )
        usage = UsageService(database=database, accounts=accounts, changes=changes, now=clock)
        queries = UsageQueries(
            database=database,
            accounts=accounts,
            usage=usage,
            changes=changes,
            client=client,
            refresher=refresh.refresh,
            metrics=metrics,
            now=clock,
        )
        yield Parts(
            database=database,
            vault=vault,
            changes=changes,
            accounts=accounts,
            keys=KeyService(database=database, changes=changes, now=clock),
            limits=LimitService(database=database, changes=changes, seeds={}, now=clock),
            admission=admission,
            auth_server=auth_server,
            refresh=refresh,
            usage=usage,
            queries=queries,
            metrics=metrics,
            clock=clock,
            simulator=simulator,
        )
        await queries.close()
        await usage.close()
        await refresh.close()
    await database.close()


@pytest.fixture
async def parts(database_url, simulator, clock):
    async with open_parts(database_url, simulator, clock) as opened:
        yield opened


@pytest.fixture(scope="session")
def admission_target(tmp_path_factory):
    """A real admission server, one for the session: every control API that comes has a newer term."""
    folder = tmp_path_factory.mktemp("admission")
    (folder / "tokens").write_text(f"control {ROLE}\nedge edge-{ROLE}\n")
    target = f"127.0.0.1:{free_port()}"
    process = Process(
        "admission_server",
        {
            "SLUICEGATE_ADMISSION_PORT": target.rpartition(":")[2],
            "SLUICEGATE_ADMISSION_METRICS_PORT": "0",
            "SLUICEGATE_ADMISSION_STATE_DIR": str(folder / "state"),
            "SLUICEGATE_ADMISSION_TOKENS_FILE": str(folder / "tokens"),
        },
        folder / "log",
    )
    with grpc.insecure_channel(target) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=30)
        except grpc.FutureTimeoutError:
            process.kill()
            raise AssertionError((folder / "log").read_text()) from None
    yield target
    process.stop()


@pytest.fixture
async def state(admission_target):
    async with StateReader(admission_target) as reader:
        yield reader


@pytest.fixture
async def control(tmp_path, simulator, admission_target):
    """The control API with the real admission server, its first policy in force."""
    settings = settings_for(tmp_path, simulator=simulator, admission_target=admission_target)
    async with running_control(settings) as running:

        async def in_force():
            return (await running.call("GET", "/api/limits"))["version"] is not None

        await eventually(in_force, what="the first policy is in force")
        yield running


@pytest.fixture
async def lone_control(tmp_path, simulator):
    """The control API while the admission server is away."""
    async with running_control(settings_for(tmp_path, simulator=simulator)) as running:
        yield running
