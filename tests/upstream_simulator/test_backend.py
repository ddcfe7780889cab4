"""The backend over HTTP, as the edge and the control API meet it."""

import gzip
import hashlib
import json
import zlib

import httpx
import pytest
import zstandard

from tests.upstream_simulator.conftest import TURN, events_of, eventually


async def test_a_turn_is_a_stream_of_events_with_rate_limits_and_a_turn_state(client):
    answer = await client.turn()
    events = events_of(answer)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-codex-turn-state"]
    assert float(answer.headers["x-codex-primary-used-percent"]) > 0
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
    assert "say hi" in events[-1]["response"]["output"][0]["content"][0]["text"]


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("zstd", zstandard.compress), ("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
async def test_encoded_bodies_are_read(client, encoding, encode):
    headers = {**client.headers, "content-encoding": encoding, "content-type": "application/json"}
    content = encode(json.dumps(TURN).encode())
    answer = await client.simulator.http.post("/backend-api/codex/responses", content=content, headers=headers)

    assert events_of(answer)[-1]["type"] == "response.completed"


async def test_bodies_that_cannot_be_read_are_refused(client):
    statuses = {}
    for encoding in ("zstd", "gzip", "br", "identity"):
        answer = await client.simulator.http.post(
            "/backend-api/codex/responses", content=b"{", headers={**client.headers, "content-encoding": encoding}
        )
        statuses[encoding] = answer.status_code

    assert statuses == {"zstd": 400, "gzip": 400, "br": 415, "identity": 400}


async def test_every_call_needs_a_live_token_of_the_account_that_it_names(client):
    other = await client.simulator.account()
    swapped = {**client.headers, "chatgpt-account-id": other.id}
    answers = [
        await client.simulator.http.get("/backend-api/wham/usage", headers=headers)
        for headers in ({}, swapped, {**swapped, "authorization": "Bearer made-up"}, {**client.headers})
    ]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 200]
    assert answers[0].json() == answers[1].json() == {"detail": "Unauthorized"}


async def test_an_expired_token_is_refused_with_its_code(client):
    await client.change(tokens="expire")
    expired = await client.turn()
    await client.change(tokens="invalidate")
    invalidated = await client.turn()

    assert (expired.status_code, expired.json()["error"]["code"]) == (401, "token_expired")
    assert (invalidated.status_code, invalidated.json()["error"]["code"]) == (401, "token_invalidated")


async def test_what_the_backend_does_not_support_is_refused(client):
    answer = await client.turn(temperature=1)

    assert (answer.status_code, answer.json()) == (400, {"detail": "Unsupported parameter: temperature"})


async def test_a_response_is_continued_where_it_was_made(client):
    first = events_of(await client.turn())[-1]["response"]["id"]
    known = await client.turn(previous_response_id=first)
    unknown = await (await client.simulator.account()).turn(previous_response_id=first)

    assert events_of(known)[-1]["response"]["previous_response_id"] == first
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "previous_response_not_found")


async def test_a_turn_state_stays_the_same_within_a_turn_and_a_foreign_one_is_noticed(client):
    first = (await client.turn()).headers["x-codex-turn-state"]
    again = (await client.turn(headers={"x-codex-turn-state": first})).headers["x-codex-turn-state"]
    other = await client.simulator.account()
    await other.turn(headers={"x-codex-turn-state": first})

    assert again == first
    assert (await client.simulator.stats())["foreign_turn_states"] == 1


async def test_faults_of_a_request_change_its_answer(client):
    refused = await client.turn(simulate="status=429,retry-after=7")
    failed = await client.turn(simulate="fail=2,code=server_error")
    ended = await client.turn(simulate="eof-without-terminal")
    nonsense = await client.turn(simulate="nonsense")

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert events_of(failed)[-1]["response"]["error"]["code"] == "server_error"
    assert events_of(ended)[-1]["type"] == "response.output_item.done"
    assert nonsense.json()["error"]["code"] == "invalid_x_simulate"


async def test_a_cut_breaks_the_body_after_its_events(client):
    seen: list[bytes] = []
    async with client.simulator.http.stream(
        "POST", "/backend-api/codex/responses", json=TURN, headers={**client.headers, "x-simulate": "cut=3"}
    ) as answer:
        with pytest.raises(httpx.RemoteProtocolError):
            await collect(answer, into=seen)

    assert b"".join(seen).count(b"event: ") == 3


async def test_what_a_stream_consisted_of_can_be_asked_for(client):
    answer = await client.turn()
    (sent,) = (await client.simulator.stats())["answers"]

    assert sent["response_id"] == events_of(answer)[-1]["response"]["id"]
    assert (sent["bytes"], sent["sha256"]) == (len(answer.content), hashlib.sha256(answer.content).hexdigest())


async def test_a_client_that_leaves_ends_its_stream(client):
    async with client.simulator.http.stream(
        "POST", "/backend-api/codex/responses", json=TURN, headers={**client.headers, "x-simulate": "hang"}
    ) as answer:
        begun = answer.status_code
        while_open = (await client.simulator.stats())["streams"][client.id]["now"]

    assert (begun, while_open) == (200, 1)

    async def none_runs():
        return (await client.simulator.stats())["streams"][client.id]["now"] == 0

    await eventually(none_runs)


async def test_an_old_compaction_call_answers_one_compaction_item(client):
    answer = await client.simulator.http.post(
        "/backend-api/codex/responses/compact", json={"model": "m", "input": TURN["input"]}, headers=client.headers
    )

    assert answer.json()["object"] == "response.compaction"
    assert [item["type"] for item in answer.json()["output"]] == ["compaction"]


async def test_models_need_the_version_of_the_client(client):
    http = client.simulator.http
    without = await http.get("/backend-api/codex/models", headers=client.headers)
    models = await http.get("/backend-api/codex/models?client_version=0.169.0", headers=client.headers)

    assert without.status_code == 400
    assert "gpt-5.5" in [entry["slug"] for entry in models.json()["models"]]


async def test_usage_and_the_workspace_are_told(client):
    http = client.simulator.http
    usage = (await http.get("/backend-api/wham/usage", headers=client.headers)).json()
    check = (await http.get("/backend-api/wham/accounts/check", headers=client.headers)).json()

    assert usage["rate_limit"]["primary_window"]["limit_window_seconds"] == 18_000
    assert check["accounts"][0]["id"] == client.id


async def collect(answer, *, into):
    async for chunk in answer.aiter_raw():
        into.append(chunk)
