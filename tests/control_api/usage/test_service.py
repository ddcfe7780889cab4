import asyncio

import pytest

from admission_client.lease import Credits, RateLimitWindow, TokenUsage
from admission_client.policy import AccountSignal
from control_api.accounts.status import StatusEvent
from control_api.errors import Conflict, NotFound
from control_api.usage.windows import UsageReport, UsageWindow
from tests.control_api.conftest import open_parts

USAGE = "GET /backend-api/wham/usage"


async def limit(parts, account_id, event=StatusEvent.RATE_LIMITED, *, reset_in=3_600.0):
    async with parts.database.write() as session:
        account = await parts.accounts.load(session, account_id)
        await parts.accounts.change(session, account, event, reason="test", reset_at=parts.clock.now + reset_in)


async def told(parts, account_id, used, **more):
    report = UsageReport(windows=(UsageWindow(length=604_800, used_percent=used, resets_at=None),), **more)
    await parts.usage.store(account_id, report, told_at=parts.clock.now)


async def status_of(parts, account_id):
    return (await parts.accounts.get(account_id)).status


async def test_a_query_stores_windows_by_their_length_and_ends_nothing_else(parts):
    account_id, _ = await parts.sign_in()

    outcome = await parts.usage.poll(account_id)

    view = await parts.usage.view(account_id)
    assert outcome == "stored"
    assert [window.length for window in view.windows] == [18_000, 604_800]
    assert view.told_at == parts.clock.now


async def test_concurrent_queries_of_one_account_are_one_query(parts):
    account_id, _ = await parts.sign_in()

    outcomes = await asyncio.gather(*(parts.usage.poll(account_id, manual=True) for _ in range(20)))

    assert set(outcomes) == {"stored"}
    assert await parts.simulator.requests(USAGE) == 1


async def test_a_caller_that_leaves_does_not_stop_the_query(parts):
    account_id, _ = await parts.sign_in()
    leaving = asyncio.create_task(parts.usage.poll(account_id))
    staying = asyncio.create_task(parts.usage.poll(account_id))
    await asyncio.sleep(0)
    leaving.cancel()

    assert await staying == "stored"


async def test_repeated_403s_cost_one_query_and_no_status(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=403", on="usage")

    outcomes = [await parts.usage.poll(account_id) for _ in range(3)]

    assert outcomes == ["cooling_down", "skipped", "skipped"]
    assert await parts.simulator.requests(USAGE) == 1
    assert await status_of(parts, account_id) == "active"


async def test_a_cooldown_survives_a_restart_and_other_accounts_are_not_concerned(parts, tmp_path):
    refused, simulated = await parts.sign_in()
    other, _ = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=403", on="usage")
    await parts.usage.poll(refused)

    async with open_parts(tmp_path, parts.simulator, parts.clock) as restarted:
        outcomes = [await restarted.usage.poll(refused), await restarted.usage.poll(other)]
        still = [await restarted.usage.poll(refused)]

    assert outcomes == ["skipped", "stored"]
    assert still == ["skipped"]


async def test_a_manual_query_ignores_the_cooldown_and_its_success_ends_it(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=403", on="usage", times=1)
    await parts.usage.poll(account_id)

    by_hand = await parts.usage.poll(account_id, manual=True)
    afterwards = await parts.usage.poll(account_id)

    assert (by_hand, afterwards) == ("stored", "stored")
    assert (await parts.usage.view(account_id)).cooldown_until is None


@pytest.mark.parametrize("status", [500, 503, 429, 408])
async def test_a_passing_trouble_starts_no_cooldown(parts, status, monkeypatch):
    monkeypatch.setattr("control_api.usage.service._RETRY_DELAYS", (0.0, 0.0))
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate=f"status={status}", on="usage")

    outcomes = [await parts.usage.poll(account_id) for _ in range(2)]

    assert outcomes == ["transient", "transient"]
    assert await parts.simulator.requests(USAGE) == 6  # each is tried three times
    assert await status_of(parts, account_id) == "active"


async def test_a_refused_token_is_refreshed_once_and_the_query_repeated(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, tokens="expire")

    outcome = await parts.usage.poll(account_id)

    assert outcome == "stored"
    assert await parts.simulator.exchanges() == [1]
    assert (await parts.accounts.get(account_id)).credential_version == 2


async def test_a_token_that_is_refused_again_cools_the_queries_down(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=401, no-code", on="usage")

    outcomes = [await parts.usage.poll(account_id) for _ in range(3)]

    assert outcomes == ["cooling_down", "skipped", "skipped"]
    assert await parts.simulator.exchanges() == [1]
    assert await status_of(parts, account_id) == "active"


async def test_an_account_whose_every_token_is_refused_costs_few_refreshes(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=401, no-code", on="usage")

    for _ in range(60):
        await parts.usage.poll(account_id)
        parts.clock.forward(10)

    assert sum(await parts.simulator.exchanges()) <= 2


async def test_a_closed_account_is_deactivated_and_later_skipped(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=401, code=account_deactivated", on="usage")

    outcomes = [await parts.usage.poll(account_id) for _ in range(2)]

    account = await parts.accounts.get(account_id)
    assert outcomes == ["given_up", "skipped"]
    assert (account.status, account.status_reason) == ("deactivated", "account_deactivated (usage query)")
    with pytest.raises(Conflict):
        await parts.usage.poll(account_id, manual=True)
    with pytest.raises(NotFound):
        await parts.usage.poll("nobody")


async def test_an_ended_session_means_signing_in_again(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=401, code=app_session_terminated", on="usage")

    await parts.usage.poll(account_id)

    assert await status_of(parts, account_id) == "reauth_required"


async def test_402_deactivates_and_a_404_that_meets_two_accounts_does_not(parts):
    unpaid, simulated_unpaid = await parts.sign_in()
    first, simulated_first = await parts.sign_in()
    second, simulated_second = await parts.sign_in()
    await parts.simulator.change(simulated_unpaid, simulate="status=402", on="usage")
    await parts.simulator.change(simulated_first, simulate="status=404, no-code", on="usage")
    await parts.simulator.change(simulated_second, simulate="status=404, code=gone", on="usage")

    outcomes = [await parts.usage.poll(account_id) for account_id in (unpaid, first, second)]

    assert outcomes == ["given_up", "cooling_down", "cooling_down"]
    assert [await status_of(parts, account_id) for account_id in (unpaid, first, second)] == [
        "deactivated",
        "active",
        "active",
    ]


async def test_room_in_fresh_usage_ends_a_limit_before_its_reset(parts):
    account_id, _ = await parts.sign_in()
    await limit(parts, account_id)
    parts.clock.forward(40)

    await told(parts, account_id, 100.0)
    still = await status_of(parts, account_id)
    await told(parts, account_id, 20.0)

    assert (still, await status_of(parts, account_id)) == ("rate_limited", "active")


async def test_a_limit_ends_with_its_time(parts):
    account_id, _ = await parts.sign_in()
    await limit(parts, account_id, StatusEvent.QUOTA_EXCEEDED, reset_in=100)
    await parts.usage.recover()
    early = await status_of(parts, account_id)
    parts.clock.forward(101)

    await parts.usage.recover()

    assert (early, await status_of(parts, account_id)) == ("quota_exceeded", "active")
    assert (await parts.history(account_id))[-1] == "room_again"


async def test_usage_never_brings_back_a_deactivated_or_paused_account(parts):
    paused, _ = await parts.sign_in()
    closed, _ = await parts.sign_in()
    await parts.accounts.pause(paused)
    await limit(parts, closed, StatusEvent.ACCOUNT_DISABLED)

    for account_id in (paused, closed):
        await told(parts, account_id, 0.0)

    assert [await status_of(parts, account_id) for account_id in (paused, closed)] == ["paused", "deactivated"]


async def test_a_downgrade_to_free_counts_when_it_is_told_twice_in_a_row(parts):
    account_id, _ = await parts.sign_in(plan="plus")
    plans = []
    for plan in ("free", "plus", "free", "free"):
        await told(parts, account_id, 0.0, plan=plan)
        plans.append((await parts.accounts.get(account_id)).plan)

    assert plans == ["plus", "plus", "plus", "free"]


def signal(account_id, *, epoch=1, succeeded=0, used=None, tokens=0):
    windows = () if used is None else (RateLimitWindow(length=18_000.0, used_percent=used, resets_after=60.0),)
    return AccountSignal(
        epoch=epoch,
        sequence=1,
        account_id=account_id,
        windows=windows,
        credits=Credits(has_credits=True, balance="5"),
        succeeded=succeeded,
        usage=TokenUsage(input_tokens=tokens),
    )


async def test_counts_are_sums_of_differences_within_an_epoch(parts):
    account_id, _ = await parts.sign_in()
    for epoch, succeeded in ((1, 5), (1, 8), (1, 8), (2, 3)):
        parts.usage.observe(signal(account_id, epoch=epoch, succeeded=succeeded, tokens=succeeded * 10))
        await parts.usage.flush(everything=True)

    view = await parts.usage.view(account_id)
    assert (view.succeeded, view.input_tokens) == (11, 110)


async def test_what_traffic_tells_is_written_at_most_every_five_seconds_and_the_latest_wins(parts):
    account_id, _ = await parts.sign_in()
    seen = []
    for used in (10.0, 20.0, 30.0):
        parts.usage.observe(signal(account_id, used=used))
        await parts.usage.flush()
        seen.append([window.used_percent for window in (await parts.usage.view(account_id)).windows])
        parts.clock.forward(1)
    parts.clock.forward(5)
    await parts.usage.flush()

    assert seen == [[10.0], [10.0], [10.0]]
    assert [window.used_percent for window in (await parts.usage.view(account_id)).windows] == [30.0]


async def test_history_is_sparse_and_pruned(parts):
    account_id, _ = await parts.sign_in()
    for _ in range(10):
        await told(parts, account_id, 1.0)
        parts.clock.forward(60)
    kept, _ = await parts.usage.samples(account_id, before=None, limit=100)
    parts.clock.forward(31 * 86_400)
    await parts.usage.prune()
    left, _ = await parts.usage.samples(account_id, before=None, limit=100)

    assert len(kept) == 2
    assert left == []


async def test_weights_follow_what_is_left(parts):
    fresh, _ = await parts.sign_in()
    half, _ = await parts.sign_in()
    empty, _ = await parts.sign_in()
    await told(parts, half, 50.0)
    await told(parts, empty, 100.0)

    weights = await parts.usage.weights()

    assert weights[fresh] == 2 * weights[half] > weights[empty] == 0.0
