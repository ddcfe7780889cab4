import asyncio

import pytest

from control_api.accounts.identity import sign_in
from control_api.errors import Conflict, NotFound
from tests.control_api.conftest import open_parts
from tests.control_api.running import eventually
from tests.control_api.test_answers import drip, serving

USAGE = "GET /backend-api/wham/usage"


async def status_of(parts, account_id):
    return (await parts.accounts.get(account_id)).status


async def move_upstream(parts, account_id, url):
    async with parts.database.write() as session:
        account = await parts.accounts.load(session, account_id)
        account.base_url = url
        session.add(account)


def waiting_for(query):
    return sum("hand_over" in repr(callback) for callback in query._callbacks)


async def test_a_query_stores_windows_by_their_length_and_ends_nothing_else(parts):
    account_id, _ = await parts.sign_in()

    outcome = await parts.queries.poll(account_id)

    view = await parts.usage.view(account_id)
    assert outcome == "stored"
    assert [window.length for window in view.windows] == [18_000, 604_800]
    assert view.told_at == parts.clock.now


async def test_concurrent_queries_of_one_account_are_one_query(parts):
    account_id, _ = await parts.sign_in()
    asked, everybody_has_come = [], asyncio.Event()

    async def answer(writer):
        asked.append(writer)
        await everybody_has_come.wait()
        body = b'{"rate_limit": {"primary_window": {"used_percent": 4, "limit_window_seconds": 18000}}}'
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    async with serving(answer) as url, asyncio.timeout(30):
        await move_upstream(parts, account_id, url)
        callers = [asyncio.create_task(parts.queries.poll(account_id, manual=True)) for _ in range(20)]
        await eventually(lambda: asked and waiting_for(parts.queries._queries[account_id]) == len(callers))
        everybody_has_come.set()
        outcomes = await asyncio.gather(*callers)

    assert set(outcomes) == {"stored"}
    assert len(asked) == 1


async def test_a_caller_that_leaves_does_not_stop_the_query(parts):
    account_id, _ = await parts.sign_in()
    leaving = asyncio.create_task(parts.queries.poll(account_id))
    staying = asyncio.create_task(parts.queries.poll(account_id))
    await asyncio.sleep(0)
    leaving.cancel()

    assert await staying == "stored"


async def test_repeated_403s_cost_one_query_and_no_status(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=403", on="usage")

    outcomes = [await parts.queries.poll(account_id) for _ in range(3)]

    assert outcomes == ["cooling_down", "skipped", "skipped"]
    assert await parts.simulator.requests(USAGE) == 1
    assert await status_of(parts, account_id) == "active"


async def test_a_cooldown_survives_a_restart_and_other_accounts_are_not_concerned(parts, database_url):
    refused, simulated = await parts.sign_in()
    other, _ = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=403", on="usage")
    await parts.queries.poll(refused)

    async with open_parts(database_url, parts.simulator, parts.clock) as restarted:
        outcomes = [await restarted.queries.poll(refused), await restarted.queries.poll(other)]
        still = [await restarted.queries.poll(refused)]

    assert outcomes == ["skipped", "stored"]
    assert still == ["skipped"]


async def test_a_manual_query_ignores_the_cooldown_and_its_success_ends_it(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=403", on="usage", times=1)
    await parts.queries.poll(account_id)

    by_hand = await parts.queries.poll(account_id, manual=True)
    afterwards = await parts.queries.poll(account_id)

    assert (by_hand, afterwards) == ("stored", "stored")
    assert (await parts.usage.view(account_id)).cooldown_until is None


async def test_a_credential_that_is_newer_than_the_refusal_is_asked_with_at_once(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=403", on="usage", times=1)
    await parts.queries.poll(account_id)
    parts.clock.forward(10)
    account = await parts.accounts.get(account_id)
    tokens = await parts.auth_server.refresh(parts.accounts.refresh_token(account))
    await parts.accounts.accept(sign_in(tokens, account_id=account.upstream_account_id), source="signed_in")

    outcome = await parts.queries.poll(account_id)

    assert outcome == "stored"


@pytest.mark.parametrize("status", [500, 503, 429, 408])
async def test_a_passing_trouble_starts_no_cooldown(parts, status, monkeypatch):
    monkeypatch.setattr("control_api.usage.queries._RETRY_DELAYS", (0.0, 0.0))
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate=f"status={status}", on="usage")

    outcomes = [await parts.queries.poll(account_id) for _ in range(2)]

    assert outcomes == ["transient", "transient"]
    assert await parts.simulator.requests(USAGE) == 6  # each is tried three times
    assert await status_of(parts, account_id) == "active"


async def test_a_refused_token_is_refreshed_once_and_the_query_repeated(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, tokens="expire")

    outcome = await parts.queries.poll(account_id)

    assert outcome == "stored"
    assert await parts.simulator.exchanges() == [1]
    assert (await parts.accounts.get(account_id)).credential_version == 2


async def test_a_token_that_was_taken_back_is_refreshed_before_the_account_is_given_up(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, tokens="invalidate")
    renewed = await parts.queries.poll(account_id)
    await parts.simulator.change(simulated, tokens="invalidate")
    taken_again = await parts.queries.poll(account_id)

    assert (renewed, taken_again) == ("stored", "given_up")
    assert await parts.simulator.exchanges() == [1]
    assert await status_of(parts, account_id) == "reauth_required"


async def test_a_token_that_is_refused_again_cools_the_queries_down(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=401, no-code", on="usage")

    outcomes = [await parts.queries.poll(account_id) for _ in range(3)]

    assert outcomes == ["cooling_down", "skipped", "skipped"]
    assert await parts.simulator.exchanges() == [1]
    assert await status_of(parts, account_id) == "active"


async def test_an_account_whose_every_token_is_refused_costs_few_refreshes(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=401, no-code", on="usage")

    for _ in range(60):
        await parts.queries.poll(account_id)
        parts.clock.forward(10)

    assert sum(await parts.simulator.exchanges()) <= 2


async def test_a_closed_account_is_deactivated_and_later_skipped(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=401, code=account_deactivated", on="usage")

    outcomes = [await parts.queries.poll(account_id) for _ in range(2)]

    account = await parts.accounts.get(account_id)
    assert outcomes == ["given_up", "skipped"]
    assert (account.status, account.status_reason) == ("deactivated", "account_deactivated (usage query)")
    with pytest.raises(Conflict):
        await parts.queries.poll(account_id, manual=True)
    with pytest.raises(NotFound):
        await parts.queries.poll("nobody")


async def test_an_ended_session_means_signing_in_again(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=401, code=app_session_terminated", on="usage")

    await parts.queries.poll(account_id)

    assert await status_of(parts, account_id) == "reauth_required"


async def test_402_deactivates_and_a_404_that_meets_two_accounts_does_not(parts):
    unpaid, simulated_unpaid = await parts.sign_in()
    first, simulated_first = await parts.sign_in()
    second, simulated_second = await parts.sign_in()
    await parts.simulator.change(simulated_unpaid, simulate="status=402", on="usage")
    await parts.simulator.change(simulated_first, simulate="status=404, no-code", on="usage")
    await parts.simulator.change(simulated_second, simulate="status=404, code=gone", on="usage")

    outcomes = [await parts.queries.poll(account_id) for account_id in (unpaid, first, second)]

    assert outcomes == ["given_up", "cooling_down", "cooling_down"]
    assert [await status_of(parts, account_id) for account_id in (unpaid, first, second)] == [
        "deactivated",
        "active",
        "active",
    ]


async def test_a_dripping_upstream_does_not_keep_a_query_beyond_its_time(parts, monkeypatch):
    account_id, _ = await parts.sign_in()
    monkeypatch.setattr("control_api.usage.queries.QUERY_TIMEOUT", 0.2)

    async with serving(drip) as url, asyncio.timeout(10):
        await move_upstream(parts, account_id, url)
        outcome = await parts.queries.poll(account_id)

    assert outcome == "failed"


async def test_closing_ends_queries_under_way_and_tells_who_waits(parts):
    account_id, _ = await parts.sign_in()

    async with serving(drip) as url, asyncio.timeout(10):
        await move_upstream(parts, account_id, url)
        waiting = asyncio.create_task(parts.queries.poll(account_id))
        await eventually(lambda: parts.queries._queries)
        await parts.queries.close()
        outcome = await waiting

    assert outcome == "stopped"
    assert not parts.queries._queries
