"""An upstream rejects credentials in the middle of traffic: it costs one refresh, and clients notice next to nothing.

Every test has accounts of its own that have served nobody yet; those of earlier tests are paused. An account that
has just served is not blamed for a 401, and that would need ten seconds to be over.
"""

import asyncio
import collections

import pytest
from admission.v1 import control_service_pb2, state_service_pb2

from tests.system.running import eventually, text_of

ENVIRONMENT = {"SLUICEGATE_EDGE_RETRY_BUDGET": "10000"}
"""No test of these spends the retries of the next one."""
REQUESTS = 1_000
AT_ONCE = 25
RESPONSES = "POST /backend-api/codex/responses"


@pytest.fixture
def pool(system):
    """Makes the pool: these accounts serve and no others. Returns their ids here by their ids at the simulator."""

    async def make(*names):
        for account in (await system.operator.control("GET", "/api/accounts"))["items"]:
            if account["status"] != "paused":
                await system.operator.control("POST", f"/api/accounts/{account['id']}/pause")
        ids = {name: await system.operator.add_chatgpt_account(id=name) for name in names}
        for account_id in ids.values():
            # Asked now, so that no query of the usage finds the rejection before traffic does.
            await system.operator.control("POST", f"/api/usage/{account_id}/refresh")
        await eventually(lambda: are_serving(system, set(ids.values())), what="these accounts serve and no others")
        await system.operator.simulate("DELETE", "/__simulate/stats")
        return ids

    return make


async def test_a_401_in_traffic_costs_one_refresh_and_the_user_notices_nothing(system, pool):
    account_id = (await pool("revoked"))["revoked"]
    await simulate(system, "revoked", tokens="invalidate")
    answer = await system.turn()

    assert answer.status_code == 200
    assert "response.completed" in answer.text
    assert text_of(answer.text)
    assert await exchanges(system) == 1
    assert await history(system, account_id) == ["imported", "credential_rejected", "refreshed"]


async def test_many_turns_that_meet_the_401_together_cost_one_refresh(system, pool):
    await pool("crowded")
    await simulate(system, "crowded", tokens="invalidate")
    answers = await asyncio.gather(*(system.turn() for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert await exchanges(system) == 1


@pytest.mark.parametrize("code", ["token_invalidated", "invalid_authentication"])
async def test_an_account_whose_every_token_is_rejected_costs_few_refreshes(system, pool, code):
    await pool(f"hopeless-{code}")
    await simulate(system, f"hopeless-{code}", simulate=f"status=401,code={code}")
    answers: collections.Counter[tuple[int, str]] = collections.Counter()
    turns = iter(range(REQUESTS))

    async def client():
        for _ in turns:
            answer = await system.turn()
            answers[answer.status_code, answer.json()["error"]["code"]] += 1
            assert 1 <= int(answer.headers["retry-after"]) <= 120

    async with asyncio.timeout(120):
        await asyncio.gather(*(client() for _ in range(AT_ONCE)))

    assert answers == {(503, "upstream_auth_unavailable"): REQUESTS}
    assert 1 <= await exchanges(system) <= 2


async def test_one_poisoned_request_leaves_all_accounts_active(system, pool):
    ids = await pool("first", "second", "third")
    poisoned, *others = await asyncio.gather(system.turn(simulate="status=401"), *(system.turn() for _ in range(20)))
    refused_by = (await stats(system))["requests"][RESPONSES]["401"]
    accounts = [await system.operator.control("GET", f"/api/accounts/{account_id}") for account_id in ids.values()]

    assert (poisoned.status_code, poisoned.json()["error"]["code"]) == (503, "upstream_auth_unavailable")
    assert int(poisoned.headers["retry-after"]) >= 1
    assert refused_by == 3
    assert {answer.status_code for answer in others} == {200}
    assert [account["status"] for account in accounts] == ["active"] * 3
    assert await exchanges(system) <= 1
    await eventually(lambda: are_serving(system, set(ids.values())), what="all accounts serve again")


async def test_a_poisoned_request_does_not_take_away_an_account_that_is_alone(system, pool):
    account_id = (await pool("alone"))["alone"]
    poisoned = await system.turn(simulate="status=401")
    served = await system.turn()
    account = await system.operator.control("GET", f"/api/accounts/{account_id}")

    assert (poisoned.status_code, served.status_code) == (503, 200)
    assert account["status"] == "active"
    assert await exchanges(system) <= 1


async def test_a_turn_whose_account_is_rejected_goes_on_at_once_on_another(system, pool):
    await pool("rejected", "healthy")
    await simulate(system, "rejected", tokens="invalidate")
    await simulate(system, "rejected", simulate="status=500", on="refresh")  # so there is nothing to wait for

    async def rejected_one_was_tried():
        answer = await system.turn()
        assert answer.status_code == 200
        return "401" in (await stats(system))["requests"][RESPONSES]

    await eventually(rejected_one_was_tried, within=8, what="a turn has met the rejected account and was served")

    assert (await stats(system))["requests"][RESPONSES]["401"] == 1


async def simulate(system, name, **changes):
    await system.operator.simulate("PUT", f"/__simulate/accounts/{name}", changes)


async def stats(system):
    return await system.operator.simulate("GET", "/__simulate/stats")


async def exchanges(system):
    """Returns how often anybody has tried to exchange a refresh token."""
    return sum(seen["attempts"] for seen in (await stats(system))["refresh_exchanges"].values())


async def history(system, account_id):
    """Returns the account's events, the oldest first."""
    items = (await system.operator.control("GET", f"/api/accounts/{account_id}/history"))["items"]
    return [item["event"] for item in reversed(items)]


async def are_serving(system, account_ids):
    """Returns whether the admission server may grant these accounts, and no others."""
    async with system.state_service() as service:
        answer = await service.ListAccounts(state_service_pb2.ListAccountsRequest(page_size=1000), timeout=5)
    return account_ids == {
        account.account_id
        for account in answer.accounts
        if account.has_credential
        and account.status == control_service_pb2.ACCOUNT_STATUS_ACTIVE
        and not account.HasField("blocked_for")
    }
