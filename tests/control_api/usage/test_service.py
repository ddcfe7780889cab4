import asyncio

from sqlmodel import text

from admission_client.lease import Credits, RateLimitWindow, TokenUsage
from admission_client.policy import AccountSignal
from control_api.accounts.status import StatusEvent
from control_api.usage.windows import UsageReport, UsageWindow
from tests.control_api.running import eventually


async def limit(parts, account_id, event=StatusEvent.RATE_LIMITED, *, reset_in=3_600.0):
    async with parts.database.write() as session:
        account = await parts.accounts.load(session, account_id)
        await parts.accounts.change(session, account, event, reason="test", reset_at=parts.clock.now + reset_in)


async def told(parts, account_id, used, **more):
    report = UsageReport(windows=(UsageWindow(length=604_800, used_percent=used, resets_at=None),), **more)
    await parts.usage.store(account_id, report, told_at=parts.clock.now)


async def status_of(parts, account_id):
    return (await parts.accounts.get(account_id)).status


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


async def test_an_account_that_is_deleted_while_its_limit_ends_is_passed_over(parts):
    deleted, _ = await parts.sign_in()
    other, _ = await parts.sign_in()
    for account_id in (deleted, other):
        await limit(parts, account_id, reset_in=10)
    parts.clock.forward(60)
    async with parts.database.write() as session:
        await session.delete(await parts.accounts.load(session, deleted))
        await session.flush()
        recovery = asyncio.create_task(parts.usage.recover())
        # The sweep has seen the account, which is still there for readers, and waits for this writer.
        await eventually(lambda: a_writer_waits(parts))

    await recovery

    assert await status_of(parts, other) == "active"


async def a_writer_waits(parts):
    """Whether a write waits for another one: in this process for SQLite's one writer, else at the server for a row."""
    if "postgresql" not in str(parts.database._engine.url):
        return parts.database._writer._waiters
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with parts.database.read() as session:
        return (await session.exec(text(waiting))).scalar()


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


async def test_a_query_forgets_windows_that_the_upstream_no_longer_tells_and_traffic_does_not(parts):
    account_id, _ = await parts.sign_in()
    month = UsageWindow(length=2_592_000, used_percent=100.0, resets_at=None)
    await parts.usage.store(account_id, UsageReport(windows=(month,)), told_at=parts.clock.now)
    parts.clock.forward(10)
    await told(parts, account_id, 10.0)
    parts.usage.observe(signal(account_id, used=20.0))
    await parts.usage.flush(everything=True)

    kept = [window.length for window in (await parts.usage.view(account_id)).windows]
    parts.clock.forward(10)
    await parts.usage.store(account_id, UsageReport(), told_at=parts.clock.now)

    assert kept == [18_000, 604_800]
    assert [window.length for window in (await parts.usage.view(account_id)).windows] == kept


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
