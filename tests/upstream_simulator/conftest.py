"""A simulator on a port of its own, in this process, and clients of it."""

import asyncio
import contextlib
import json

import httpx
import pytest
import websockets.asyncio.client
from aiohttp import web

from upstream_simulator.app import open_runner
from upstream_simulator.settings import SimulatorSettings

TURN = {
    "model": "gpt-5.5",
    "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "say hi"}]}],
    "store": False,
    "stream": True,
}
SOCKET_VERSION = {"openai-beta": "responses_websockets=2026-02-06"}


class Simulator:
    """A running simulator: `http` talks to it, `connect` opens sockets."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=10)

    async def account(self, **wish):
        made = (await self.http.post("/__simulate/accounts", json=wish)).json()
        return Client(self, made)

    async def stats(self):
        return (await self.http.get("/__simulate/stats")).json()

    @contextlib.asynccontextmanager
    async def connect(self, path, headers):
        async with websockets.asyncio.client.connect(
            self.url.replace("http", "ws") + path, additional_headers=headers, proxy=None
        ) as websocket:
            yield Socket(websocket)


class Client:
    """Somebody with the credentials of one account."""

    def __init__(self, simulator, made):
        self.simulator = simulator
        self.id = made["id"]
        self.auth_json = made.get("auth_json")
        token = made["api_key"] if "api_key" in made else self.auth_json["tokens"]["access_token"]
        self.headers = {"authorization": f"Bearer {token}"}
        if self.auth_json:
            self.headers["chatgpt-account-id"] = self.auth_json["tokens"]["account_id"]

    async def turn(self, *, path=None, simulate=None, headers=None, **changes):
        path = path or ("/backend-api/codex/responses" if self.auth_json else "/v1/responses")
        faults = {"x-simulate": simulate} if simulate else {}
        return await self.simulator.http.post(
            path, json={**TURN, **changes}, headers={**self.headers, **faults, **(headers or {})}
        )

    def connect(self, simulate=None):
        faults = {"x-simulate": simulate} if simulate else {}
        path = "/backend-api/codex/responses" if self.auth_json else "/v1/responses"
        return self.simulator.connect(path, {**self.headers, **SOCKET_VERSION, **faults})

    async def change(self, **wish):
        return await self.simulator.http.put(f"/__simulate/accounts/{self.id}", json=wish)


class Socket:
    """One open socket, a frame at a time or a turn at a time."""

    def __init__(self, websocket):
        self.websocket = websocket

    async def send(self, **frame):
        await self.websocket.send(json.dumps({"type": "response.create", **TURN, **frame}))

    async def next(self):
        async with asyncio.timeout(10):
            return json.loads(await self.websocket.recv())

    async def turn(self, **frame):
        await self.send(**frame)
        events = [await self.next()]
        while events[-1]["type"] not in {"response.completed", "response.incomplete", "response.failed", "error"}:
            events.append(await self.next())
        return events


@pytest.fixture
async def simulator():
    runner = await open_runner(SimulatorSettings(event_delay=0))
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    running = Simulator(runner.addresses[0][1])
    yield running
    await running.http.aclose()
    await runner.cleanup()


@pytest.fixture
async def client(simulator):
    return await simulator.account()


def events_of(answer):
    """Returns the events of an SSE body, after checking that their names agree with their data."""
    events = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n", 1)
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


async def eventually(condition, *, within=5.0):
    """Waits until an async condition is true."""
    async with asyncio.timeout(within):
        while not await condition():
            await asyncio.sleep(0.01)
