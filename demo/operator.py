"""What an operator does over REST: accounts, keys, limits. The demo and the system tests drive Sluicegate so."""

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from demo.endpoints import Endpoints
from service_runtime.private_files import read_private


class OperatorError(Exception):
    """The control API or the simulator refused. The message holds its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """An API key for the edge, as it is shown once."""

    id: str
    key: str = field(repr=False)


class Operator:
    """Talks to the control API of a system with its admin token, and to its simulator."""

    def __init__(self, endpoints: Endpoints, admin_token_file: Path) -> None:
        self._control = httpx.AsyncClient(
            base_url=endpoints.control, auth=_AdminToken(admin_token_file), trust_env=False, timeout=15.0
        )
        self._simulator = httpx.AsyncClient(base_url=endpoints.simulator, trust_env=False, timeout=15.0)
        self._simulator_api = f"{endpoints.simulator}/v1"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._control.aclose()
        await self._simulator.aclose()

    async def add_chatgpt_account(self, **simulated: Any) -> str:
        """Makes a ChatGPT account in the simulator, imports its `auth.json`, and returns its id here."""
        made = await self.simulate("POST", "/__simulate/accounts", {"kind": "chatgpt", **simulated})
        account = await self.control("POST", "/api/accounts/import", made["auth_json"])
        return str(account["id"])

    async def add_api_key_account(self, name: str, **simulated: Any) -> str:
        """Makes an account with an API key in the simulator, adds it, and returns its id here."""
        made = await self.simulate("POST", "/__simulate/accounts", {"kind": "api_key", **simulated})
        body = {"kind": "api_key", "name": name, "base_url": self._simulator_api, "api_key": made["api_key"]}
        return str((await self.control("POST", "/api/accounts", body))["id"])

    async def create_key(self, name: str) -> ClientKey:
        """Creates an API key for clients of the edge."""
        made = await self.control("POST", "/api/keys", {"name": name})
        return ClientKey(id=made["id"], key=made["key"])

    async def set_limit(self, resource: str, **settings: Any) -> int:
        """Changes settings of one resource; returns the version of the policy that is in force with it."""
        answer = await self.control("PATCH", "/api/limits", {"resources": {resource: settings}})
        return int(answer["version"])

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        """Calls the control API and returns the decoded answer. Raises `OperatorError` for a status of 400 and up."""
        return await self._call(self._control, method, path, body)

    async def simulate(self, method: str, path: str, body: Any = None) -> Any:
        """Calls the simulator, likewise."""
        return await self._call(self._simulator, method, path, body)

    async def _call(self, client: httpx.AsyncClient, method: str, path: str, body: Any) -> Any:
        answer = await client.request(method, path, json=body)
        if answer.status_code >= 400:
            raise OperatorError(f"{method} {path} answered {answer.status_code}: {answer.text}")
        return answer.json() if answer.content else None


class _AdminToken(httpx.Auth):
    """Adds the admin token, read when it is needed: the file is there once the system has been started."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["authorization"] = f"Bearer {read_private(self._path)}"
        yield request
