"""The simulator's own side, as tests and the demo use it."""

import time

from tests.upstream_simulator.conftest import events_of


async def test_an_account_is_made_with_what_its_kind_needs(simulator):
    chatgpt = await simulator.http.post("/__simulate/accounts", json={"id": "one", "plan": "pro"})
    api_key = await simulator.http.post("/__simulate/accounts", json={"kind": "api_key"})
    plain = await simulator.http.post("/__simulate/accounts")

    assert [answer.status_code for answer in (chatgpt, api_key, plain)] == [201, 201, 201]
    assert chatgpt.json()["id"] == chatgpt.json()["auth_json"]["tokens"]["account_id"] == "one"
    assert api_key.json()["api_key"].startswith("sk-")


async def test_wishes_that_mean_nothing_are_refused(simulator, client):
    answers = [
        await simulator.http.post("/__simulate/accounts", json={"kind": "other"}),
        await simulator.http.post("/__simulate/accounts", json={"colour": "blue"}),
        await client.change(simulate="nonsense"),
        await simulator.http.put("/__simulate/accounts/nobody", json={}),
    ]

    assert [answer.status_code for answer in answers] == [400, 400, 400, 404]


async def test_faults_hold_until_they_are_cleared(client):
    await client.simulator.http.put(
        f"/__simulate/accounts/{client.id}", content="status=503", headers={"content-type": "text/plain"}
    )
    refused = [(await client.turn()).status_code for _ in range(2)]
    await client.simulator.http.delete(f"/__simulate/accounts/{client.id}")
    served = await client.turn()

    assert refused == [503, 503]
    assert served.status_code == 200


async def test_faults_apply_where_they_were_set(client):
    await client.change(simulate="status=403", on="usage")
    usage = await client.simulator.http.get("/backend-api/wham/usage", headers=client.headers)
    turn = await client.turn()

    assert (usage.status_code, turn.status_code) == (403, 200)


async def test_an_answer_that_is_no_stream_can_be_slow(client):
    await client.change(simulate="slow=0.1", on="usage")
    began = time.monotonic()
    await client.simulator.http.get("/backend-api/wham/usage", headers=client.headers)

    assert time.monotonic() - began >= 0.1


async def test_usage_can_be_set(client):
    await client.change(usage={"primary": {"used_percent": 100, "reset_after_seconds": 30}}, plan="pro")
    usage = (await client.simulator.http.get("/backend-api/wham/usage", headers=client.headers)).json()

    assert usage["plan_type"] == "pro"
    assert usage["rate_limit"]["limit_reached"]
    assert usage["rate_limit"]["primary_window"]["reset_after_seconds"] <= 30


async def test_the_statistics_tell_what_was_seen_and_can_begin_anew(client):
    answer = await client.turn(simulate="slow=0")
    seen = await client.simulator.stats()
    await client.simulator.http.delete("/__simulate/stats")
    anew = await client.simulator.stats()

    assert events_of(answer)
    assert seen["requests"]["POST /backend-api/codex/responses"] == {"200": 1}
    assert seen["streams"][client.id]["most"] == 1
    assert seen["turns"][0]["body"]["model"] == "gpt-5.5"
    assert (anew["streams"], anew["turns"]) == ({}, [])


async def test_accounts_are_listed_and_shown(client):
    await client.change(simulate="slow=1", times=3)
    listed = (await client.simulator.http.get("/__simulate/accounts")).json()["items"]
    shown = (await client.simulator.http.get(f"/__simulate/accounts/{client.id}")).json()

    assert listed == [shown]
    assert shown["faults"] == {"responses": {"simulate": "slow=1", "times": 3}}


async def test_it_says_that_it_is_up(simulator):
    assert (await simulator.http.get("/health/live")).status_code == 200
    assert (await simulator.http.get("/health/ready")).status_code == 200
