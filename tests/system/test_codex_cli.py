"""The real Codex CLI does its turns through us: signed in with a key and with ChatGPT, over HTTP and over WebSocket."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.system.codex import Codex, Provider
from tests.system.conftest import REPOSITORY, needed
from tests.system.full_lanes import full_lane
from tests.system.running import RunningSystem, eventually

MODES = ("key", "chatgpt")
TRANSPORTS = ("http", "websocket")
# Every tool call then looks as if the context were nearly full.
COMPACT_SOON = "model_auto_compact_token_limit = 20000"
NEARLY_FULL = {"x-simulate": "tokens=50000"}


@pytest.fixture(scope="session")
def binary():
    """The path of the CLI, from `make tools` or from the system."""
    installed = REPOSITORY / "tests" / "system" / "codex_cli" / "node_modules" / ".bin" / "codex"
    return needed("codex", installed, "run `make tools` where npm is")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def identity(system: RunningSystem):
    """What the user's own CLI is signed in with. It is no account of ours."""
    made = await system.operator.simulate("POST", "/__simulate/accounts", {"email": "user@example.com"})
    return made["auth_json"]


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


@pytest.fixture
def provider(system, identity, mode, transport):
    return Provider(
        port=system.ports.edge,
        key=system.key.key,
        websockets=transport == "websocket",
        auth_json=identity if mode == "chatgpt" else None,
    )


@pytest.fixture
def codex(binary, provider, tmp_path):
    return Codex(binary, tmp_path, provider)


async def test_it_says_its_answer(codex):
    run = await codex.say("say hi")

    assert run.status == 0, run.stderr
    assert ["say hi" in message for message in run.messages] == [True]


async def test_it_runs_a_tool_and_tells_what_came_out(codex):
    run = await codex.say("run: echo tool-$((40+2))")

    assert run.status == 0, run.stderr
    assert run.messages == ["The command answered: tool-42"]


async def test_it_resumes_a_thread(codex):
    first = await codex.say("say hi")
    second = await codex.say("say more", resume=first.thread_id)

    assert second.status == 0, second.stderr
    assert second.thread_id == first.thread_id
    assert "say more" in second.messages[-1]


async def test_it_compacts_when_its_context_is_nearly_full(system, binary, provider, tmp_path):
    client = Codex(binary, tmp_path, replace(provider, headers=NEARLY_FULL), settings=COMPACT_SOON)
    await system.operator.simulate("DELETE", "/__simulate/stats")
    run = await client.say("run: echo tool-$((40+2))")
    turns = (await system.operator.simulate("GET", "/__simulate/stats"))["turns"]

    assert run.status == 0, run.stderr
    assert run.messages
    last_items = [turn["body"]["input"][-1]["type"] for turn in turns if turn["body"].get("generate") is not False]
    assert last_items == ["message", "compaction_trigger", "compaction"]


async def test_its_turns_reach_the_account_with_its_own_words_and_our_credentials(system, codex, transport):
    await system.operator.simulate("DELETE", "/__simulate/stats")
    await codex.say("say hi")
    turns = (await system.operator.simulate("GET", "/__simulate/stats"))["turns"]

    assert {turn["transport"] for turn in turns} == {transport}
    assert {turn["headers"]["originator"] for turn in turns} == {"codex_exec"}
    assert {turn["headers"]["user-agent"].partition("/")[0] for turn in turns} == {"codex_exec"}
    assert not {"x-sluicegate-key", "cookie"} & {name for turn in turns for name in turn["headers"]}


async def test_every_seat_is_free_when_it_is_done(system, codex):
    await codex.say("run: true")

    await eventually(system.nothing_is_held, what="every seat is free")


@pytest.mark.parametrize("mode", ["key"])
async def test_it_comes_back_after_a_refusal_and_finishes(system, codex, transport):
    async with AsyncExitStack() as stack:
        async with full_lane(system, f"proxy_{transport}"):
            process = await stack.enter_async_context(codex.started("say hi"))
            await reconnecting(process)
        run = await codex.finish(process)

    assert run.status == 0, run.stderr
    assert "say hi" in run.messages[-1]


@pytest.mark.parametrize("transport", ["websocket"])
async def test_its_doctor_finds_the_websocket_reachable(codex):
    report = await codex.doctor()

    assert report["checks"]["network.websocket_reachability"]["status"] == "ok", json.dumps(report, indent=1)


@pytest.mark.parametrize(("mode", "transport"), [("chatgpt", "websocket")])
async def test_its_app_server_shows_the_usage_and_the_models_of_the_accounts_behind_us(codex):
    async with codex.app_server() as server:
        limits = await server.call("account/rateLimits/read")
        models = await server.call("model/list")

    assert limits["rateLimits"]["primary"]["windowDurationMins"] == 300
    assert limits["rateLimits"]["primary"]["usedPercent"] > 0
    assert "gpt-5.5" in [model["id"] for model in models["data"]]


async def reconnecting(process: asyncio.subprocess.Process) -> None:
    """Reads what the CLI prints until it says that it tries again."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        async for line in process.stdout:
            if b"Reconnecting" in line:
                return
    raise AssertionError("the CLI never tried again")
