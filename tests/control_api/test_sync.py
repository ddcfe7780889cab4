"""The control API and the real admission server: what is pushed down, and what comes up."""

import pytest

from admission_client.errors import Denied
from admission_client.lease import AccountNeeds, AccountReport, DenialReason, Outcome, RateLimitWindow, TokenUsage
from admission_client.session import AdmissionClient
from control_api.keys.service import digest_of
from tests.control_api.running import ROLE, eventually, running_control, settings_for

WORK = ("stages/response_create", "accounts/-/streams", "accounts/-/response_creates")


@pytest.fixture
async def edge(control, admission_target):
    async with AdmissionClient(admission_target, f"edge-{ROLE}", "edge/tests") as client:
        await client.wait_until_ready(10)
        yield client


async def test_a_changed_limit_is_in_force_when_the_answer_comes(control, state):
    answer = await control.call("PATCH", "/api/limits", {"resources": {"lanes/proxy_http": {"limit": 2}}}, status=200)

    seen = await state.state()
    assert answer == {"version": seen.policy_version, "applied": True}
    assert seen.resource("lanes/proxy_http").limit == 2
    assert (await control.call("GET", "/api/limits"))["version"] == seen.policy_version


async def test_a_new_key_works_at_once_and_a_revoked_one_no_longer(control, edge):
    made = await control.call("POST", "/api/keys", {"name": "laptop"}, status=201)
    digest = digest_of(made["key"])
    async with edge.acquire(["lanes/proxy_http"], key_sha256=digest) as lane:
        known_as = lane.key_id
    await control.call("DELETE", f"/api/keys/{made['id']}", status=204)

    with pytest.raises(Denied) as denied:
        async with edge.acquire(["lanes/proxy_http"], key_sha256=digest):
            pass

    assert known_as == made["id"]
    assert denied.value.denial.reason is DenialReason.KEY_UNKNOWN


async def test_a_grant_carries_the_access_token_and_no_answer_of_the_api_does(control, edge, simulator):
    made = await simulator.account()
    account_id = await control.import_account(made)
    secrets = made["auth_json"]["tokens"]

    async with edge.acquire(WORK, peer="127.0.0.1", account=AccountNeeds(model="gpt-5.5")) as grant:
        account = grant.account
    answers = [
        (await control.http.get(path)).text
        for path in ("/api/accounts", f"/api/accounts/{account_id}", "/api/usage", "/api/state", "/openapi.json")
    ]

    assert (account.account_id, account.access_token) == (account_id, secrets["access_token"])
    assert account.base_url == f"{simulator.url}/backend-api"
    assert not any(secrets[name] in text for text in answers for name in ("access_token", "refresh_token", "id_token"))


async def test_a_paused_account_is_granted_no_more_and_a_resumed_one_is(control, edge, simulator):
    account_id = await control.import_account(await simulator.account())
    await control.call("POST", f"/api/accounts/{account_id}/pause")
    with pytest.raises(Denied) as denied:
        async with edge.acquire(WORK, peer="127.0.0.1", account=AccountNeeds()):
            pass

    await control.call("POST", f"/api/accounts/{account_id}/resume")
    async with edge.acquire(WORK, peer="127.0.0.1", account=AccountNeeds()) as grant:
        granted = grant.account.account_id

    assert denied.value.denial.reason is DenialReason.NO_ACCOUNT
    assert granted == account_id


async def test_a_rejected_credential_is_refreshed_once_and_the_history_tells_the_story(control, edge, simulator):
    made = await simulator.account()
    account_id = await control.import_account(made)
    for _ in range(20):
        edge.report(
            AccountReport(account_id=account_id, credential_version=1, outcome=Outcome.AUTH_REJECTED, status=401)
        )

    needs = AccountNeeds(required_account_id=account_id, newer_than_credential_version=1)
    async with edge.acquire(WORK, peer="127.0.0.1", account=needs) as grant:
        version = grant.account.credential_version

    assert version == 2
    assert await simulator.exchanges() == [1]
    assert await control.events(account_id) == ["imported", "credential_rejected", "refreshed"]


async def test_a_credential_that_is_rejected_right_after_its_refresh_is_not_refreshed_again(control, edge, simulator):
    account_id = await control.import_account(await simulator.account())
    await control.call("POST", f"/api/accounts/{account_id}/refresh")

    edge.report(AccountReport(account_id=account_id, credential_version=2, outcome=Outcome.AUTH_REJECTED, status=401))

    async def cooling():
        return (await control.account(account_id))["cooldown_until"]

    assert await eventually(cooling)
    assert await simulator.exchanges() == [1]
    assert (await control.account(account_id))["status"] == "active"


async def test_an_admission_server_that_just_started_cools_a_fresh_credential_down_and_grants_it_again(
    tmp_path, simulator, admission_target, state
):
    async with running_control(settings_for(tmp_path, simulator=simulator)) as alone:
        account_id = await alone.import_account(await simulator.account())
        await alone.call("POST", f"/api/accounts/{account_id}/refresh")

    async def known():
        return next((a for a in (await state.accounts(page_size=1000)).items if a.account_id == account_id), None)

    async def cooling():
        return (await control.account(account_id))["cooldown_until"]

    settings = settings_for(tmp_path, simulator=simulator, admission_target=admission_target)
    async with (
        running_control(settings) as control,
        AdmissionClient(admission_target, f"edge-{ROLE}", "edge/young") as edge,
    ):
        await eventually(known)
        edge.report(
            AccountReport(account_id=account_id, credential_version=2, outcome=Outcome.AUTH_REJECTED, status=401)
        )
        await eventually(cooling)
        seen = await known()

    assert seen.has_credential, "the version was given up for good, though no refresh will come"
    assert 290 < seen.blocked_for <= 300
    assert await simulator.exchanges() == [1]


async def test_quota_that_an_edge_met_becomes_a_status_with_its_reset_time(control, edge, simulator):
    account_id = await control.import_account(await simulator.account())

    edge.report(
        AccountReport(
            account_id=account_id,
            credential_version=1,
            outcome=Outcome.QUOTA_EXCEEDED,
            status=429,
            code="usage_limit_reached",
            resets_after=1800.0,
        )
    )

    async def exceeded():
        account = await control.account(account_id)
        return account["status"] == "quota_exceeded" and account

    account = await eventually(exceeded)
    assert account["status_reason"] == "usage_limit_reached (429)"
    assert account["reset_at"] is not None


async def test_usage_seen_in_traffic_is_shown_with_its_counts(control, edge, simulator):
    account_id = await control.import_account(await simulator.account())

    edge.report(
        AccountReport(
            account_id=account_id,
            credential_version=1,
            outcome=Outcome.SUCCEEDED,
            status=200,
            usage=TokenUsage(input_tokens=100, cached_input_tokens=40, output_tokens=20),
            windows=(RateLimitWindow(length=18_000, used_percent=42.0, resets_after=600.0),),
        )
    )

    async def shown():
        usage = await control.call("GET", f"/api/usage/{account_id}")
        return usage["succeeded"] == 1 and any(window["used_percent"] == 42.0 for window in usage["windows"]) and usage

    usage = await eventually(shown)
    assert (usage["input_tokens"], usage["cached_input_tokens"], usage["output_tokens"]) == (100, 40, 20)


async def test_each_key_is_shown_what_it_has_used_itself(control, edge, simulator):
    account_id = await control.import_account(await simulator.account())
    keys = [await control.call("POST", "/api/keys", {"name": name}, status=201) for name in ("one", "two")]
    for key, times in zip(keys, (2, 1), strict=True):
        for _ in range(times):
            edge.report(
                AccountReport(
                    account_id=account_id,
                    outcome=Outcome.SUCCEEDED,
                    usage=TokenUsage(input_tokens=100, cached_input_tokens=40, output_tokens=7, reasoning_tokens=3),
                    key_sha256=digest_of(key["key"]),
                )
            )

    async def counted():
        told = [await control.call("GET", f"/api/keys/{key['id']}/usage") for key in keys]
        return [usage["succeeded"] for usage in told] == [2, 1] and told

    first, _second = await eventually(counted)
    served = []
    for key in keys:
        answer = await control.http.get("/v1/usage", headers={"authorization": f"Bearer {key['key']}"})
        served.append({name: answer.json()[name] for name in ("request_count", "total_tokens", "cached_input_tokens")})

    assert (first["input_tokens"], first["cached_input_tokens"]) == (200, 80)
    assert (first["output_tokens"], first["reasoning_tokens"]) == (14, 6)
    assert served == [
        {"request_count": 2, "total_tokens": 214, "cached_input_tokens": 80},
        {"request_count": 1, "total_tokens": 107, "cached_input_tokens": 40},
    ]
    await control.call("GET", "/api/keys/key_nobody/usage", status=404)


async def test_state_and_sessions_are_shown_and_a_session_can_be_forgotten(control, edge):
    async with edge.acquire(["lanes/proxy_http"], peer="127.0.0.1"):
        seen = await control.call("GET", "/api/state")
        sessions = (await control.call("GET", "/api/sessions"))["items"]
        mine = next(session for session in sessions if session["instance"] == "edge/tests")
        forgotten = await control.call("POST", f"/api/sessions/{mine['session_id']}/forget")
        again = await control.http.post("/api/sessions/never_there/forget")

    held = next(resource["held"] for resource in seen["resources"] if resource["name"] == "lanes/proxy_http")
    assert held == 1
    assert forgotten == {"ended": 1}
    assert again.status_code == 404


async def test_requests_of_the_api_hold_a_seat_of_the_dashboard_lane(control, edge):
    # The request that sets the limit gives its own seat back a moment after it was answered: the edge may wait for it.
    await control.call("PATCH", "/api/limits", {"resources": {"lanes/dashboard": {"limit": 1, "max_wait": 5.0}}})
    async with edge.acquire(["lanes/dashboard"], peer="127.0.0.1"):
        refused = await control.http.get("/api/accounts")
        health = await control.http.get("/health/ready")

    async def served():
        return (await control.http.get("/api/accounts")).status_code == 200

    await eventually(served)
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) >= 1
    assert health.status_code == 200


async def test_the_api_answers_while_every_proxy_lane_is_full(control, edge):
    lanes = ("lanes/proxy_http", "lanes/proxy_websocket", "lanes/proxy_compact")
    await control.call("PATCH", "/api/limits", {"resources": {lane: {"limit": 1} for lane in lanes}})
    async with (
        edge.acquire([lanes[0]], peer="a"),
        edge.acquire([lanes[1]], peer="a"),
        edge.acquire([lanes[2]], peer="a"),
    ):
        answer = await control.http.get("/api/accounts")

    assert answer.status_code == 200


async def test_what_changed_while_admission_was_away_is_in_force_at_a_successor(
    tmp_path, simulator, admission_target, state
):
    async with running_control(settings_for(tmp_path, simulator=simulator)) as alone:
        stored = await alone.call("PATCH", "/api/limits", {"resources": {"lanes/proxy_http": {"limit": 7}}}, status=202)

    settings = settings_for(tmp_path, simulator=simulator, admission_target=admission_target)
    async with running_control(settings):

        async def in_force():
            return (await state.state()).resource("lanes/proxy_http").limit == 7

        await eventually(in_force)

    assert stored == {"version": None, "applied": False}
