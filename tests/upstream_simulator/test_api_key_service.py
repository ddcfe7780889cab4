"""The lenient service, as the edge meets it for accounts that are an API key."""

import json

import httpx
import pytest

from tests.upstream_simulator.conftest import events_of


@pytest.fixture
async def customer(simulator):
    return await simulator.account(kind="api_key")


async def test_a_turn_is_streamed_or_whole_as_it_wishes(customer):
    streamed = await customer.turn(temperature=1, store=True)
    whole = await customer.turn(temperature=1, store=True, stream=False, input="say hi")

    assert events_of(streamed)[-1]["type"] == "response.completed"
    assert whole.json()["status"] == "completed"
    assert "say hi" in whole.json()["output"][0]["content"][0]["text"]


async def test_an_unknown_key_is_refused(customer):
    answer = await customer.turn(headers={"authorization": "Bearer sk-made-up"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_chat_completions_are_streamed_or_whole(customer):
    question = {"model": "m", "messages": [{"role": "user", "content": "say hi"}]}
    http = customer.simulator.http
    whole = await http.post("/v1/chat/completions", json=question, headers=customer.headers)
    streamed = await http.post(
        "/v1/chat/completions",
        json={**question, "stream": True, "stream_options": {"include_usage": True}},
        headers=customer.headers,
    )
    lines = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line]
    chunks = [json.loads(line) for line in lines[:-1]]

    assert "say hi" in whole.json()["choices"][0]["message"]["content"]
    assert lines[-1] == "[DONE]"
    assert chunks[-1]["usage"]["total_tokens"] > 0
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert text == whole.json()["choices"][0]["message"]["content"]


async def test_embeddings_are_the_same_for_the_same_text(customer):
    answer = await customer.simulator.http.post(
        "/v1/embeddings", json={"model": "e", "input": ["a", "b", "a"]}, headers=customer.headers
    )
    one, two, three = (entry["embedding"] for entry in answer.json()["data"])

    assert one == three != two


async def test_models_and_compaction_are_there(customer):
    http = customer.simulator.http
    models = await http.get("/v1/models", headers=customer.headers)
    compacted = await http.post("/v1/responses/compact", json={"model": "m", "input": []}, headers=customer.headers)

    assert models.json()["object"] == "list"
    assert [item["type"] for item in compacted.json()["output"]] == ["compaction"]


async def test_faults_meet_a_whole_answer_too(customer):
    refused = await customer.turn(stream=False, simulate="code=insufficient_quota")
    with pytest.raises(httpx.RemoteProtocolError):
        await customer.turn(stream=False, simulate="cut=3")

    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
