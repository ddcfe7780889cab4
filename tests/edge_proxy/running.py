"""An edge under real uvicorn on a real socket, with admission in memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from admission_client.lease import AccountKind, GrantedAccount
from admission_client.memory import MemoryAdmission
from edge_proxy.app import EdgeApp
from edge_proxy.settings import EdgeSettings
from edge_proxy.supervisor import address_of, listen
from edge_proxy.worker import server_config
from service_runtime.http_server import HttpServer

KEY = {"authorization": "Bearer sk-sg-test"}
LONGEST_WAIT = 10.0


@dataclass
class RunningEdge:
    app: EdgeApp
    url: str
    admission: MemoryAdmission
    registry: CollectorRegistry

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def client(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers=KEY, timeout=LONGEST_WAIT, **options)

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    @property
    def idle(self) -> bool:
        return not self.admission.held


@asynccontextmanager
async def running_edge(admission: MemoryAdmission, **settings: Any) -> AsyncIterator[RunningEdge]:
    edge_settings = EdgeSettings(host="127.0.0.1", port=0, **settings)
    registry = CollectorRegistry()
    listener = listen(edge_settings)
    async with EdgeApp(edge_settings, admission, registry) as app:
        server = HttpServer(config := server_config(app, edge_settings))
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        await server.on_tick(0)
        try:
            yield RunningEdge(app, f"http://{address_of(listener)}", admission, registry)
        finally:
            await _stop(server)


async def _stop(server: HttpServer) -> None:
    """Does what uvicorn's own shutdown does, without its fixed pauses."""
    for listening in server.servers:
        listening.close()
    state = server.server_state
    for connection in list(state.connections):
        connection.shutdown()
    await until(lambda: not state.connections and not state.tasks)


def accounts(url: str, *kinds: AccountKind) -> list[GrantedAccount]:
    """Accounts of these kinds, named acc_1, acc_2 and so on."""
    return [
        GrantedAccount(
            account_id=f"acc_{number}",
            kind=kind,
            base_url=f"{url}/backend-api" if kind is AccountKind.CHATGPT else f"{url}/v1",
            private_upstream=True,
            upstream_account_id=f"upstream-{number}" if kind is AccountKind.CHATGPT else "",
            access_token=f"token-{number}",
            credential_version=1,
        )
        for number, kind in enumerate(kinds, start=1)
    ]


async def until(condition: Callable[[], bool], *, within: float = LONGEST_WAIT) -> None:
    """Waits for a condition, with a deadline."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)
