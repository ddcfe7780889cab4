"""What the demo shows: an account, a key, turns as they arrive with the seats they hold, what grpcurl tells,
and how to go on from there.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from admission_client.state import ServerState, StateReader
from demo.endpoints import Endpoints
from demo.grpcurl import show_call
from demo.operator import ClientKey, Operator

MODEL = "gpt-5.5"
VISITOR = "demo"
GET_STATE = "admission.v1.StateService/GetState"
PROMPT = "What does a sluice gate do?"
_STATE_BY_GRPCURL = "The whole state as grpcurl prints it, asked while that socket was still open:"
_STATE_WITHOUT_GRPCURL = """The whole state as grpcurl would print it, asked while that socket was still open.
(There is no grpcurl here, `make tools` installs one where Go is. This came through server reflection instead.)"""
_BODY = {
    "model": MODEL,
    "instructions": "Answer in two sentences.",
    "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": PROMPT}]}],
    "stream": True,
    "store": False,
}


class TurnFailed(Exception):
    """The demo's turn was not answered as it should be. The message says what came instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoClient:
    """Everything a script needs to know to use the running demo."""

    endpoints: Endpoints
    key: ClientKey
    account_id: str
    admin_token_file: Path


async def show_turns(
    client: DemoClient, say: Callable[[str], None], write: Callable[[str], None], *, grpcurl: str | None
) -> None:
    """Sends a turn over HTTP and one over a WebSocket: writes the answers as they arrive, and the seats they hold. Ends
    with what grpcurl tells of the system, while the socket is still open. Raises `TurnFailed`, `NoAnswer`.
    """
    say(f"POST {client.endpoints.edge}/backend-api/codex/responses   “{PROMPT}”")
    turn = await _show(http_turn(client), client, write)
    say("The seats it held while it streamed, as the admission server told over gRPC:")
    for line in state_table(turn.state):
        say(line)
    say(f"\nGET {client.endpoints.edge}/backend-api/codex/responses, upgraded to a WebSocket   “{PROMPT}”")
    turn = await _show(
        websocket_turn(client),
        client,
        write,
        when_answered=lambda: show_call(client.endpoints.admission, GET_STATE, grpcurl=grpcurl),
    )
    lane = turn.state.resource("lanes/proxy_websocket")
    say(f"It held {lane.held if lane else 0} seat of lanes/proxy_websocket.")
    say(f"\n{_STATE_BY_GRPCURL if grpcurl else _STATE_WITHOUT_GRPCURL}")
    say(turn.told)


async def server_state(target: str) -> ServerState:
    """Asks the admission server for its state."""
    async with StateReader(target) as service:
        return await service.state()


def state_table(state: ServerState) -> list[str]:
    """Returns the lanes and stages, and whatever else has a seat taken, as lines for a terminal."""
    rows = [
        resource
        for resource in state.resources
        if resource.held or resource.waiting or resource.name.startswith(("lanes/", "stages/"))
    ]
    width = max(len(row.name) for row in rows)
    lines = [f"  {'resource':<{width}}  held  limit  waiting"]
    for row in rows:
        limit = str(row.limit) if row.limit else "∞"
        lines.append(f"  {row.name:<{width}}  {row.held:>4}  {limit:>5}  {row.waiting:>7}")
    return lines


def next_steps(client: DemoClient) -> str:
    """Returns what to try next, ready to be pasted."""
    body = json.dumps({"model": MODEL, "input": PROMPT, "stream": True})
    return f"""
  edge      {client.endpoints.edge}
  control   {client.endpoints.control}     admin token in {client.admin_token_file}
  admission {client.endpoints.admission}  (gRPC)

A turn with curl:
  curl -N {client.endpoints.edge}/v1/responses -H 'Authorization: Bearer {client.key.key}' \\
       -H 'Content-Type: application/json' -d '{body}'

The Codex CLI: put this into a config.toml, its folder into CODEX_HOME, and run
  SLUICEGATE_KEY={client.key.key} codex exec --skip-git-repo-check "{PROMPT}"

  model = "{MODEL}"
  model_provider = "sluicegate"
  [model_providers.sluicegate]
  name = "OpenAI"
  base_url = "{client.endpoints.edge}/backend-api/codex"
  wire_api = "responses"
  supports_websockets = true
  env_key = "SLUICEGATE_KEY"

What the admission server thinks right now:
  grpcurl -plaintext {client.endpoints.admission} {GET_STATE}
"""


async def prepare(operator: Operator, *, endpoints: Endpoints, admin_token_file: Path) -> DemoClient:
    """Adds the demo's account and key."""
    account_id = await operator.add_chatgpt_account(email="demo@example.com", plan="plus")
    key = await operator.create_key("demo")
    return DemoClient(endpoints=endpoints, key=key, account_id=account_id, admin_token_file=admin_token_file)


async def visit(operator: Operator, *, endpoints: Endpoints, admin_token_file: Path) -> DemoClient:
    """The same in a system that runs already and keeps its state: what an earlier visit left there is replaced, and the
    account is one with an API key, which may name the simulator as its own upstream.
    """
    for account in (await operator.control("GET", "/api/accounts"))["items"]:
        if account["name"] == VISITOR:
            await operator.control("DELETE", f"/api/accounts/{account['id']}")
    account_id = await operator.add_api_key_account(VISITOR)
    key = await operator.create_key(VISITOR)
    return DemoClient(endpoints=endpoints, key=key, account_id=account_id, admin_token_file=admin_token_file)


async def http_turn(client: DemoClient) -> AsyncIterator[dict[str, Any]]:
    """Sends the demo's turn over HTTP and yields its events as they arrive. Raises `TurnFailed`."""
    headers = {"authorization": f"Bearer {client.key.key}"}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30.0) as http,
        http.stream(
            "POST", f"{client.endpoints.edge}/backend-api/codex/responses", json=_BODY, headers=headers
        ) as answer,
    ):
        if answer.status_code != 200:
            raise TurnFailed(f"{answer.status_code}: {(await answer.aread()).decode(errors='replace')}")
        async for line in answer.aiter_lines():
            data = line.removeprefix("data: ")
            if data not in (line, "[DONE]"):
                yield json.loads(data)


async def websocket_turn(client: DemoClient) -> AsyncIterator[dict[str, Any]]:
    """Sends the demo's turn over a WebSocket and yields its events as they arrive. Raises `TurnFailed`."""
    url = f"{client.endpoints.edge}/backend-api/codex/responses".replace("http://", "ws://", 1)
    headers = {"authorization": f"Bearer {client.key.key}"}
    try:
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            await socket.send(json.dumps({"type": "response.create", **_BODY}))
            while True:
                async with asyncio.timeout(30):
                    event = json.loads(await socket.recv())
                yield event
                if event["type"] in ("response.completed", "response.failed", "error"):
                    return
    except (WebSocketException, TimeoutError) as error:
        raise TurnFailed(f"the WebSocket failed: {error}") from error


async def _nothing() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class _Shown:
    """The state while a turn streamed, and what was told when it was answered, before its connection was closed."""

    state: ServerState
    told: str


async def _show(
    events: AsyncIterator[dict[str, Any]],
    client: DemoClient,
    write: Callable[[str], None],
    *,
    when_answered: Callable[[], Awaitable[str]] = _nothing,
) -> _Shown:
    state = None
    told = ""
    last: dict[str, Any] = {}
    async for event in events:
        last = event
        if event["type"] == "response.output_text.delta":
            write(event["delta"])
            state = state or await server_state(client.endpoints.admission)
        if event["type"] == "response.completed":
            told = await when_answered()
    write("\n")
    if last.get("type") != "response.completed" or state is None:
        raise TurnFailed(f"the turn did not end with response.completed but with {json.dumps(last)[:300]}")
    return _Shown(state, told)
