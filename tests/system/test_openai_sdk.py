"""The official OpenAI SDK works against us, although the account behind us is the strict backend."""

import asyncio
from collections import defaultdict

import openai
import pytest_asyncio

from tests.system.full_lanes import full_lane


@pytest_asyncio.fixture(loop_scope="session")
async def sdk(system):
    async with openai.AsyncOpenAI(
        api_key=system.key.key, base_url=f"http://127.0.0.1:{system.ports.edge}/v1", max_retries=0, timeout=30
    ) as client:
        yield client


async def test_a_streamed_response_comes_in_pieces(sdk):
    stream = await sdk.responses.create(model="gpt-5.5", input="say hi", stream=True, temperature=0.5)
    events = [event async for event in stream]

    assert events[-1].type == "response.completed"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == events[-1].response.output_text


async def test_a_plain_response_comes_whole(sdk):
    response = await sdk.responses.create(model="gpt-5.5", input="say hi", max_output_tokens=100, user="me")

    assert response.status == "completed"
    assert "say hi" in response.output_text
    assert response.usage.total_tokens > 0


async def test_the_streaming_helper_is_satisfied(sdk):
    async with sdk.responses.stream(model="gpt-5.5", input="say hi") as stream:
        async for _ in stream:
            pass
        response = await stream.get_final_response()

    assert "say hi" in response.output_text


async def test_a_wrong_key_is_an_authentication_error(system):
    async with openai.AsyncOpenAI(
        api_key="sk-unknown", base_url=f"http://127.0.0.1:{system.ports.edge}/v1", max_retries=0
    ) as stranger:
        try:
            await stranger.responses.create(model="gpt-5.5", input="say hi")
        except openai.AuthenticationError as refused:
            code = refused.code

    assert code == "invalid_api_key"


async def test_it_waits_and_comes_back_after_a_refusal(system):
    refused = asyncio.Event()

    async def note(answer):
        if answer.status_code == 429:
            refused.set()

    async with openai.AsyncOpenAI(
        api_key=system.key.key,
        base_url=f"http://127.0.0.1:{system.ports.edge}/v1",
        max_retries=5,
        http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [note]}),
    ) as client:
        async with full_lane(system, "proxy_http"):
            coming = asyncio.create_task(client.responses.create(model="gpt-5.5", input="say hi"))
            async with asyncio.timeout(10):
                await refused.wait()
        response = await coming

    assert "say hi" in response.output_text


async def test_two_lines_share_a_socket(sdk):
    said: dict[str, str] = defaultdict(str)
    completed = set()
    async with sdk.responses.connect() as connection:
        for line in ("left", "right"):
            await connection.send(
                {"type": "response.create", "model": "gpt-5.5", "input": f"say {line}", "stream_id": line}
            )
        async with asyncio.timeout(30):
            async for event in connection:
                if event.type == "response.output_text.delta":
                    said[event.stream_id] += event.delta
                if event.type == "response.completed":
                    completed.add(event.stream_id)
                if completed == {"left", "right"}:
                    break

    assert "say left" in said["left"]
    assert "say right" in said["right"]
