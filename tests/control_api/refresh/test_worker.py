import random

import pytest

from control_api.accounts.identity import fingerprint
from control_api.errors import AuthRefused, AuthUnreachable, DatabaseAway, RefreshOverloaded
from control_api.refresh.models import RefreshIntent
from control_api.refresh.worker import RefreshWorker
from tests.control_api.running import eventually


@pytest.fixture
def worker(parts):
    return RefreshWorker(database=parts.database, refresh=parts.refresh, now=parts.clock, source=random.Random(1))


async def settled(parts, worker):
    """Lets the worker look once, and waits for what it began."""
    await worker.look()
    await eventually(lambda: not worker._running)


async def version_of(parts, account_id):
    return (await parts.accounts.get(account_id)).credential_version


async def test_a_fresh_account_takes_no_seat_and_no_exchange(parts, worker):
    account_id, _ = await parts.sign_in()
    parts.clock.now = (await parts.accounts.get(account_id)).credential_obtained_at + 60

    await settled(parts, worker)

    assert parts.admission.asked == []
    assert await parts.simulator.exchanges() == []


async def test_a_credential_is_refreshed_before_it_expires_and_not_long_before(parts, worker):
    account_id, _ = await parts.sign_in(access_token_ttl=5 * 86_400)
    account = await parts.accounts.get(account_id)
    parts.clock.now = account.access_expires_at - 700
    await settled(parts, worker)
    early = await version_of(parts, account_id)
    parts.clock.now = account.access_expires_at - 200

    await settled(parts, worker)

    assert (early, await version_of(parts, account_id)) == (1, 2)


async def test_a_rejected_credential_is_refreshed_at_once_but_after_a_cooldown_not_before_its_end(parts, worker):
    account_id, _ = await parts.sign_in()
    async with parts.database.write() as session:
        account = await parts.accounts.load(session, account_id)
        parts.clock.now = account.credential_obtained_at + 60
        account.rejected_version = account.credential_version
        account.cooldown_until = parts.clock.now + 300
        session.add(account)
    await settled(parts, worker)
    cooling = await version_of(parts, account_id)
    parts.clock.forward(301)

    await settled(parts, worker)

    assert (cooling, await version_of(parts, account_id)) == (1, 2)


async def test_a_refresh_that_is_refused_is_tried_again_later_and_later(parts, worker):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=400,no-code", on="refresh")
    parts.clock.now = (await parts.accounts.get(account_id)).access_expires_at

    attempts = []
    for _ in range(40):
        await settled(parts, worker)
        attempts.append(sum(await parts.simulator.exchanges()))
        parts.clock.forward(10)

    assert attempts[-1] < 10
    assert (await parts.accounts.get(account_id)).status == "active"


@pytest.mark.parametrize(
    "trouble",
    [
        AuthUnreachable("refused", sent=False),
        AuthUnreachable("no answer", sent=True),
        AuthRefused("broken", code="http_500", status=500),
        AuthRefused("asked too often", code="http_429", status=429),
        RefreshOverloaded("full", code="refresh_overloaded"),
        DatabaseAway("gone"),
    ],
)
async def test_after_trouble_that_is_not_the_accounts_the_next_attempt_is_never_far(
    parts, worker, monkeypatch, trouble
):
    account_id, _ = await parts.sign_in()
    exchange = parts.auth_server.refresh

    async def refuse(_refresh_token):
        raise trouble

    monkeypatch.setattr(parts.auth_server, "refresh", refuse)
    for _ in range(20):
        await settled(parts, worker)
        parts.clock.forward(80)
    monkeypatch.setattr(parts.auth_server, "refresh", exchange)

    await settled(parts, worker)

    assert await version_of(parts, account_id) == 2


async def test_an_auth_server_that_names_a_time_is_not_asked_before_it(parts, worker):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=429,retry-after=100", on="refresh", times=1)
    parts.clock.now = (await parts.accounts.get(account_id)).access_expires_at
    attempts = []
    for seconds in (0, 95, 10):
        parts.clock.forward(seconds)
        await settled(parts, worker)
        attempts.append(sum(await parts.simulator.exchanges()))

    assert attempts == [1, 1, 2]


async def test_a_new_rejection_does_not_wait_for_the_end_of_a_backoff(parts, worker):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=400,no-code", on="refresh")
    for _ in range(8):
        await settled(parts, worker)
        parts.clock.forward(200)
    await parts.simulator.http.delete(f"/__simulate/accounts/{simulated}")
    await settled(parts, worker)
    waiting = await version_of(parts, account_id)
    async with parts.database.write() as session:
        account = await parts.accounts.load(session, account_id)
        account.rejected_version = account.credential_version
        session.add(account)

    await settled(parts, worker)

    assert (waiting, await version_of(parts, account_id)) == (1, 2)


async def test_an_interrupted_exchange_of_an_older_token_asks_for_nothing(parts, worker):
    account_id, _ = await parts.sign_in(access_token_ttl=5 * 86_400)
    parts.clock.now = (await parts.accounts.get(account_id)).credential_obtained_at + 60
    async with parts.database.write() as session:
        session.add(RefreshIntent(account_id=account_id, refresh_token_sha256=fingerprint("older"), started_at=1.0))

    await settled(parts, worker)

    assert await parts.simulator.exchanges() == []


async def test_an_interrupted_exchange_whose_token_is_still_good_is_repeated_at_start(parts, worker):
    account_id, _ = await parts.sign_in()
    account = await parts.accounts.get(account_id)
    async with parts.database.write() as session:
        session.add(
            RefreshIntent(account_id=account_id, refresh_token_sha256=account.refresh_token_sha256, started_at=1.0)
        )

    await settled(parts, worker)

    assert (await parts.accounts.get(account_id)).credential_version == 2
    assert await parts.open_intents() == []


async def test_an_interrupted_exchange_whose_token_was_used_up_is_reported_as_such(parts, worker):
    account_id, _ = await parts.sign_in()
    account = await parts.accounts.get(account_id)
    async with parts.database.write() as session:
        session.add(
            RefreshIntent(account_id=account_id, refresh_token_sha256=account.refresh_token_sha256, started_at=1.0)
        )
    await parts.auth_server.refresh(parts.accounts.refresh_token(account))  # the answer that was lost

    await settled(parts, worker)

    account = await parts.accounts.get(account_id)
    assert account.status == "reauth_required"
    assert account.status_reason.startswith("refresh_token_reused")
    assert "interrupted" in account.status_reason
    assert await parts.open_intents() == []
