"""A turn flows through all three processes."""

from tests.system.running import events_of, eventually, text_of


async def test_a_streamed_turn_of_codex_is_answered(system):
    answer = await system.turn()

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "hi" in text_of(answer.text)
    assert events_of(answer.text)[-1]["type"] == "response.completed"


async def test_a_plain_turn_of_an_sdk_is_folded_into_one_object(system):
    answer = await system.turn(path="/v1/responses", stream=False, input="say hi", temperature=0.5)

    assert answer.status_code == 200
    assert answer.json()["object"] == "response"
    assert answer.json()["status"] == "completed"
    assert "hi" in answer.json()["output"][-1]["content"][0]["text"]


async def test_every_seat_is_free_after_a_turn(system):
    await system.turn()

    await eventually(system.nothing_is_held, what="every seat is free")


async def test_an_unknown_key_is_refused_and_takes_no_seat(system):
    answer = await system.edge.post(
        "/v1/responses", json={"model": "gpt-5.5", "input": "hi"}, headers={"authorization": "Bearer sk-unknown"}
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert await system.leases() == []


async def test_what_is_not_on_the_allow_list_is_not_found(system):
    for path in ("/api/accounts", "/backend-api/conversations", "/openapi.json", "/"):
        answer = await system.edge.get(path, headers=system.headers)

        assert answer.status_code == 404, path


async def test_an_api_key_account_serves_without_the_chatgpt_dialect(system):
    await system.operator.add_api_key_account("spare")
    await system.operator.control("POST", f"/api/accounts/{system.account_id}/pause")
    try:
        answer = await system.turn(path="/v1/responses", input="say hi", temperature=0.5, store=True)

        assert answer.status_code == 200
        assert events_of(answer.text)[-1]["type"] == "response.completed"
    finally:
        await system.operator.control("POST", f"/api/accounts/{system.account_id}/resume")


async def test_usage_comes_in_the_shape_of_its_path(system):
    told = {}
    for path in ("/v1/usage", "/api/codex/usage", "/backend-api/wham/usage"):
        answer = await system.edge.get(path, headers=system.headers)
        assert answer.status_code == 200, path
        told[path] = answer.json().keys()

    assert told["/v1/usage"] == {
        "request_count",
        "total_tokens",
        "cached_input_tokens",
        "total_cost_usd",
        "limits",
        "upstream_limits",
        "account_pool_usage",
    }
    assert (
        told["/api/codex/usage"]
        == told["/backend-api/wham/usage"]
        == {"plan_type", "rate_limit", "credits", "rate_limit_reset_credits", "additional_rate_limits"}
    )
