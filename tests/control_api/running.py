"""A running control API as the tests see it: the real application on a real SQLite file, spoken to over HTTP, with the
real simulator as upstream and auth server, and the real admission server where a test needs one.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from control_api.app import open_control
from control_api.settings import ControlSettings
from upstream_simulator.app import open_runner
from upstream_simulator.settings import SimulatorSettings

ADMIN = "admin-token-of-the-tests"
ROLE = "role-token-of-the-tests"
DEADLINE = 20.0


async def eventually(condition, *, within=DEADLINE, what="the condition holds"):
    """Waits until `condition()` (awaited if need be) is true, and returns what it returned."""
    until = time.monotonic() + within
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Simulator:
    """A simulator on a port of its own."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=10)

    async def account(self, **wish):
        made = await self.http.post("/__simulate/accounts", json=wish)
        made.raise_for_status()
        return made.json()

    async def change(self, account_id, **change):
        answer = await self.http.put(f"/__simulate/accounts/{account_id}", json=change)
        answer.raise_for_status()

    async def stats(self):
        return (await self.http.get("/__simulate/stats")).json()

    async def exchanges(self):
        return [seen["attempts"] for seen in (await self.stats())["refresh_exchanges"].values()]

    async def requests(self, request):
        seen = (await self.stats())["requests"].get(request, {})
        return sum(seen.values())


@contextlib.asynccontextmanager
async def running_simulator():
    runner = await open_runner(SimulatorSettings())
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    simulator = Simulator(runner.addresses[0][1])
    try:
        yield simulator
    finally:
        await simulator.http.aclose()
        await runner.cleanup()


def settings_for(data_dir, *, simulator=None, admission_target="127.0.0.1:1", **changes):
    upstream = {}
    if simulator is not None:
        upstream = {"upstream_base_url": f"{simulator.url}/backend-api", "auth_base_url": simulator.url}
    values = {
        "data_dir": data_dir,
        "admin_token": ADMIN,
        "admission_token": ROLE,
        "admission_target": admission_target,
        "allow_private_upstreams": "true",
        "usage_interval": 3_600.0,
        "login_callback_port": 0,
        **upstream,
        **changes,
    }
    return ControlSettings(**values)


def client_of(app, *, token=ADMIN, peer="127.0.0.1"):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(peer, 5_000))
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers, timeout=30)


@contextlib.asynccontextmanager
async def running_control(settings):
    """Yields the control API with an operator's `http` client."""
    async with open_control(settings) as control, client_of(control.app) as http:
        yield Running(control, http)


class Running:
    def __init__(self, control, http):
        self.control = control
        self.app = control.app
        self.http = http

    async def call(self, method, path, body=None, *, status=None):
        answer = await self.http.request(method, path, json=body)
        if status is None:
            assert answer.status_code < 400, answer.text
        else:
            assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def import_account(self, made):
        return (await self.call("POST", "/api/accounts/import", made["auth_json"]))["id"]

    async def account(self, account_id):
        return await self.call("GET", f"/api/accounts/{account_id}")

    async def events(self, account_id):
        items = (await self.call("GET", f"/api/accounts/{account_id}/history"))["items"]
        return [item["event"] for item in reversed(items)]


class Process:
    """A process of this project."""

    def __init__(self, module, environment, log):
        self._log = Path(log).open("ab")  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **environment},
            stdout=self._log,
            stderr=self._log,
        )

    def kill(self):
        self._end(signal.SIGKILL)

    def stop(self):
        self._end(signal.SIGTERM)

    def _end(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(timeout=30)
        self._log.close()


async def healthy(url):
    with contextlib.suppress(httpx.HTTPError):
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(f"{url}/health/ready")).status_code == 200
    return False


def control_environment(folder, port, *, simulator, admission_target, **changes):
    values = {
        "DATA_DIR": folder / "control",
        "PORT": port,
        "METRICS_PORT": 0,
        "ADMIN_TOKEN": ADMIN,
        "ADMISSION_TOKEN": ROLE,
        "ADMISSION_TARGET": admission_target,
        "UPSTREAM_BASE_URL": f"{simulator.url}/backend-api",
        "AUTH_BASE_URL": simulator.url,
        "ALLOW_PRIVATE_UPSTREAMS": "true",
        "USAGE_INTERVAL": 3600,
        "LOGIN_CALLBACK_PORT": free_port(),
        **changes,
    }
    return {f"SLUICEGATE_CONTROL_{name}": str(value) for name, value in values.items()}


class ControlProcess:
    """The control API as a process, which can be killed and started again on the same data."""

    def __init__(self, folder, *, simulator, admission_target, **changes):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "control.log"
        self._environment = control_environment(
            folder, self.port, simulator=simulator, admission_target=admission_target, **changes
        )
        self.process: Any = None

    async def start(self):
        self.process = Process("control_api", self._environment, self.log)
        until = time.monotonic() + DEADLINE
        while not await healthy(self.url):
            if self.process.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(self.log.read_text())
            await asyncio.sleep(0.05)

    def client(self):
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {ADMIN}"},
            trust_env=False,
            timeout=30,
            limits=httpx.Limits(max_connections=None),
        )
