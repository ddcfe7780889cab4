"""What each key has used is exact: over HTTP and sockets, when the control API was killed, over epochs of admission."""

import json
from dataclasses import dataclass

import websockets.asyncio.client

from tests.system.running import TURN, RunningSystem, events_of, eventually

PATH = "/backend-api/codex/responses"


@dataclass
class Client:
    """A client with a key of its own, who adds up what its answers said."""

    system: RunningSystem
    key_id: str
    key: str
    requests: int = 0
    tokens: int = 0
    cached: int = 0

    @property
    def headers(self):
        return {"authorization": f"Bearer {self.key}"}

    async def turn(self):
        answer = await self.system.edge.post(PATH, json=TURN, headers=self.headers)
        assert answer.status_code == 200, answer.text
        self._add(events_of(answer.text)[-1])

    async def turns_on_a_socket(self, times):
        uri = f"ws://127.0.0.1:{self.system.ports.edge}{PATH}"
        async with websockets.asyncio.client.connect(uri, additional_headers=self.headers, proxy=None) as socket:
            for _ in range(times):
                await socket.send(json.dumps({**TURN, "type": "response.create"}))
                async for message in socket:
                    event = json.loads(message)
                    if event["type"] == "response.completed":
                        self._add(event)
                        break

    async def is_told_so(self):
        """Returns whether `/v1/usage` through the edge says what was added up."""
        told = (await self.system.edge.get("/v1/usage", headers=self.headers)).json()
        return (told["request_count"], told["total_tokens"], told["cached_input_tokens"]) == (
            self.requests,
            self.tokens,
            self.cached,
        )

    def _add(self, completed):
        assert completed["type"] == "response.completed"
        usage = completed["response"]["usage"]
        self.requests += 1
        self.tokens += usage["input_tokens"] + usage["output_tokens"]
        self.cached += usage["input_tokens_details"]["cached_tokens"]


async def client_of(system, name):
    key = await system.operator.create_key(name)
    return Client(system, key.id, key.key)


async def test_each_key_is_told_what_it_used_itself_over_http_and_over_a_socket(system):
    one, other, idle = [await client_of(system, name) for name in ("one", "other", "idle")]
    await one.turn()
    await one.turns_on_a_socket(2)
    await other.turn()

    await eventually(one.is_told_so, what="the first key's usage is what its answers said")
    await eventually(other.is_told_so, what="the second key's usage is what its answer said")
    assert await idle.is_told_so()
    assert one.tokens > other.tokens > 0
    told = await system.operator.control("GET", f"/api/keys/{one.key_id}/usage")
    assert (told["succeeded"], told["input_tokens"] + told["output_tokens"]) == (3, one.tokens)


async def test_turns_while_the_control_api_is_dead_count_once_it_is_back(system):
    client = await client_of(system, "patient")
    await client.turn()
    await system.stack.kill("control_api")
    await client.turn()
    await client.turns_on_a_socket(1)
    await system.stack.start("control_api")
    await system.stack.wait_ready("control_api")

    await eventually(client.is_told_so, what="what was used meanwhile has been told")


async def test_counts_of_another_epoch_are_added_to_what_was_stored(system):
    client = await client_of(system, "of two epochs")
    await client.turn()
    await eventually(client.is_told_so, what="the first epoch's usage is stored")
    epoch = (await system.state()).epoch
    await system.stack.terminate("admission_server")
    await system.stack.start("admission_server")
    await system.stack.wait_ready("admission_server")
    await client.turn()

    await eventually(client.is_told_so, what="both epochs' usage is told")
    assert (await system.state()).epoch > epoch
