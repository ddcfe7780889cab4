"""A running system as the tests see it: the stack, an operator, clients of the edge, and the state over gRPC."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import httpx
from admission.v1 import state_service_pb2, state_service_pb2_grpc

from demo.operator import ClientKey, Operator
from demo.services import SystemOptions
from demo.stack import Stack
from service_runtime.private_files import read_private

TURN = {
    "model": "gpt-5.5",
    "instructions": "Answer briefly.",
    "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "say hi"}]}],
    "stream": True,
    "store": False,
}


class RunningSystem:
    """A stack with one ChatGPT account and one client key."""

    account_id: str
    key: ClientKey

    def __init__(self, options: SystemOptions) -> None:
        self.stack = Stack(options)
        self.ports = options.ports
        self.operator = Operator(self.stack.endpoints, self.stack.secrets.admin_token)
        self.edge = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{options.ports.edge}",
            trust_env=False,
            timeout=30.0,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self.admission_target = f"127.0.0.1:{options.ports.admission}"

    async def __aenter__(self) -> "RunningSystem":
        await self.stack.__aenter__()
        try:
            self.account_id = await self.operator.add_chatgpt_account()
            self.key = await self.operator.create_key("tests")
            await eventually(self._serves, what="a first turn is served")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.edge.aclose()
        await self.operator.__aexit__(None, None, None)
        await self.stack.stop()

    @property
    def headers(self) -> dict[str, str]:
        """Headers that authenticate a client."""
        return {"authorization": f"Bearer {self.key.key}"}

    def role_token(self, role: str) -> str:
        """Returns the token of a role, for calls to the admission server by hand."""
        return read_private(self.stack.secrets.role_token(role))

    @contextlib.asynccontextmanager
    async def open_turn(
        self, *, path: str = "/backend-api/codex/responses", simulate: str = "", **changes: Any
    ) -> AsyncIterator[httpx.Response]:
        """Sends a turn and yields the answer while it streams; leaving the block hangs up."""
        headers = {**self.headers, **({"x-simulate": simulate} if simulate else {})}
        async with self.edge.stream("POST", path, json={**TURN, **changes}, headers=headers) as answer:
            yield answer

    async def turn(self, **options: Any) -> httpx.Response:
        """Sends a turn and returns the whole answer."""
        async with self.open_turn(**options) as answer:
            await answer.aread()
        return answer

    async def state(self) -> state_service_pb2.GetStateResponse:
        """Asks the admission server for its state."""
        async with self.state_service() as service:
            state: state_service_pb2.GetStateResponse = await service.GetState(
                state_service_pb2.GetStateRequest(), timeout=5
            )
        return state

    async def leases(self, **filters: str) -> list[state_service_pb2.LeaseState]:
        """Asks the admission server for the leases that are held."""
        async with self.state_service() as service:
            request = state_service_pb2.ListLeasesRequest(page_size=1000, **filters)
            return list((await service.ListLeases(request, timeout=5)).leases)

    async def held(self, resource: str) -> int:
        """Returns how many seats of a resource are taken."""
        return next((found.held for found in (await self.state()).resources if found.name == resource), 0)

    async def nothing_is_held(self) -> bool:
        """Returns whether every seat is free."""
        return not await self.leases()

    @contextlib.asynccontextmanager
    async def state_service(self) -> AsyncIterator[state_service_pb2_grpc.StateServiceStub]:
        async with grpc.aio.insecure_channel(self.admission_target) as channel:
            yield state_service_pb2_grpc.StateServiceStub(channel)

    async def _serves(self) -> bool:
        return (await self.turn()).status_code == 200


async def eventually(condition: Callable[[], Any], *, within: float = 20.0, what: str = "the condition holds") -> None:
    """Waits until an async condition is true; fails after `within` seconds, saying what was waited for."""
    try:
        async with asyncio.timeout(within):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {within} s: {what}") from None


def events_of(body: str) -> list[dict[str, Any]]:
    """Returns the JSON objects of an SSE body, without comments and without `[DONE]`."""
    data = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(item) for item in data if item != "[DONE]"]


def text_of(body: str) -> str:
    """Returns the answer's text from an SSE body."""
    return "".join(event["delta"] for event in events_of(body) if event["type"] == "response.output_text.delta")
