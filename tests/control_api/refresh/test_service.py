import asyncio

import httpx
import pytest

from admission_client.lease import Denial, DenialReason
from admission_client.memory import MemoryAdmission
from admission_client.policy import ResourceSettings
from control_api.accounts.identity import Tokens, fingerprint, read_auth_json, sign_in
from control_api.accounts.models import Account
from control_api.errors import (
    AuthRefused,
    AuthUnreachable,
    Conflict,
    DatabaseBusy,
    NotFound,
    RefreshDead,
    RefreshFailed,
    RefreshOverloaded,
    problem_of,
)
from control_api.local_seats import LocalSeats
from tests.control_api.running import eventually


@pytest.fixture
def gate(parts, monkeypatch):
    """Holds exchanges back until it is set."""
    opened, exchange = asyncio.Event(), parts.auth_server.refresh

    async def held(refresh_token):
        await opened.wait()
        return await exchange(refresh_token)

    monkeypatch.setattr(parts.auth_server, "refresh", held)
    return opened


def exchanging(parts):
    return any(flight.exchanging for flight in parts.refresh._flights.values())


async def test_a_refresh_rotates_the_stored_token_and_bumps_the_version(parts):
    account_id, _ = await parts.sign_in()
    before = await parts.accounts.get(account_id)

    refreshed = await parts.refresh.refresh(account_id, reason="test")

    after = await parts.accounts.get(account_id)
    assert refreshed.rotated
    assert refreshed.credential_version == after.credential_version == before.credential_version + 1
    assert after.refresh_token_sha256 != before.refresh_token_sha256
    assert await parts.open_intents() == []
    assert (await parts.history(account_id))[-1] == "refreshed"


async def test_two_hundred_concurrent_callers_cause_exactly_one_exchange_and_one_seat(parts):
    account_id, _ = await parts.sign_in()

    outcomes = await asyncio.gather(*(parts.refresh.refresh(account_id, reason="test") for _ in range(200)))

    assert await parts.simulator.exchanges() == [1]
    assert {outcome.credential_version for outcome in outcomes} == {2}
    assert parts.admission.asked == [("stages/token_refresh",)]


async def test_a_caller_that_comes_with_an_old_look_at_the_row_gets_the_finished_result(parts):
    account_id, _ = await parts.sign_in()
    stale = await parts.accounts.get(account_id)
    await parts.refresh.refresh(account_id, reason="first")

    late = await parts.refresh._refresh_row(stale, "late")

    assert late.credential_version == 2
    assert await parts.simulator.exchanges() == [1]


async def test_a_finished_result_does_not_outlive_its_account(parts):
    made = await parts.simulator.account()
    file = read_auth_json(httpx.Response(200, json=made["auth_json"]).content)
    account_id = (await parts.accounts.accept(file, source="imported")).account.id
    await parts.refresh.refresh(account_id, reason="test")
    await parts.accounts.delete(account_id)
    await parts.accounts.accept(file, source="imported")

    with pytest.raises(RefreshDead) as failure:
        await parts.refresh.refresh(account_id, reason="test")

    assert failure.value.code == "refresh_token_reused"
    assert (await parts.accounts.get(account_id)).status == "reauth_required"


async def test_a_cancelled_caller_does_not_cancel_the_refresh_of_the_others(parts, gate):
    account_id, _ = await parts.sign_in()
    callers = [asyncio.create_task(parts.refresh.refresh(account_id, reason="test")) for _ in range(5)]
    await eventually(lambda: exchanging(parts))
    for caller in callers[:4]:
        caller.cancel()
    gate.set()

    survivor = await callers[4]

    assert survivor.rotated
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*callers[:4], return_exceptions=True)
    )


async def test_a_refresh_goes_on_when_every_caller_has_left(parts, gate):
    account_id, _ = await parts.sign_in()
    caller = asyncio.create_task(parts.refresh.refresh(account_id, reason="test"))
    await eventually(lambda: exchanging(parts))
    caller.cancel()
    gate.set()

    async def rotated():
        return (await parts.accounts.get(account_id)).credential_version == 2

    await eventually(rotated)


async def test_nothing_is_exchanged_when_a_newer_credential_is_in_force_already(parts):
    account_id, _ = await parts.sign_in()

    refreshed = await parts.refresh.refresh(account_id, reason="test", rejected_version=0)

    assert not refreshed.rotated
    assert await parts.simulator.exchanges() == []


async def test_a_transient_failure_is_remembered_for_five_seconds_and_no_longer(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=500", on="refresh")

    for _ in range(3):
        with pytest.raises(RefreshFailed):
            await parts.refresh.refresh(account_id, reason="test")
    while_remembered = await parts.simulator.exchanges()
    await parts.simulator.http.delete(f"/__simulate/accounts/{simulated}")
    parts.clock.forward(5.1)
    refreshed = await parts.refresh.refresh(account_id, reason="test")

    assert while_remembered == [1]
    assert refreshed.rotated
    assert (await parts.accounts.get(account_id)).status == "active"


async def test_a_remembered_failure_does_not_outlive_its_token(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate="status=500", on="refresh", times=1)
    with pytest.raises(RefreshFailed):
        await parts.refresh.refresh(account_id, reason="test")
    made = await parts.simulator.http.get(f"/__simulate/accounts/{simulated}")
    assert made.status_code == 200
    account = await parts.accounts.get(account_id)
    elsewhere = await parts.auth_server.refresh(parts.accounts.refresh_token(account))
    await parts.accounts.accept(sign_in(elsewhere, account_id=account.upstream_account_id), source="imported")

    refreshed = await parts.refresh.refresh(account_id, reason="test")

    assert refreshed.rotated


async def test_a_broken_connection_is_not_remembered(parts, monkeypatch):
    account_id, _ = await parts.sign_in()
    monkeypatch.setattr(parts.auth_server, "_base_url", "http://127.0.0.1:1")
    with pytest.raises(RefreshFailed) as failure:
        await parts.refresh.refresh(account_id, reason="test")
    monkeypatch.undo()

    refreshed = await parts.refresh.refresh(account_id, reason="test")

    assert failure.value.code == "auth_unreachable"
    assert refreshed.rotated


@pytest.mark.parametrize(
    "then",
    [
        AuthUnreachable("refused", sent=False),
        AuthRefused("unavailable", code="http_503", status=503),
        AuthRefused("slow down", code="http_429", status=429),
    ],
)
async def test_a_lost_answer_is_not_forgotten_when_the_next_attempt_comes_to_nothing(parts, monkeypatch, then):
    account_id, _ = await parts.sign_in()
    exchange = parts.auth_server.refresh

    async def answer_lost(refresh_token):
        await exchange(refresh_token)
        raise AuthUnreachable("lost", sent=True)

    async def nothing(_refresh_token):
        raise then

    for attempt in (answer_lost, nothing):
        monkeypatch.setattr(parts.auth_server, "refresh", attempt)
        with pytest.raises(RefreshFailed):
            await parts.refresh.refresh(account_id, reason="test")
    monkeypatch.setattr(parts.auth_server, "refresh", exchange)
    parts.clock.forward(6)
    with pytest.raises(RefreshDead):
        await parts.refresh.refresh(account_id, reason="test")

    assert "interrupted" in (await parts.accounts.get(account_id)).status_reason


@pytest.mark.parametrize(
    ("refused", "remembered"),
    [
        (AuthRefused("failed", code="http_500", status=500), True),
        (AuthRefused("no token in it", code="invalid_response", status=200), True),
        (AuthRefused("slow down", code="http_429", status=429), False),
    ],
)
async def test_an_answer_that_leaves_open_whether_the_token_was_used_keeps_the_intent(
    parts, monkeypatch, refused, remembered
):
    account_id, _ = await parts.sign_in()

    async def refuse(_refresh_token):
        raise refused

    monkeypatch.setattr(parts.auth_server, "refresh", refuse)
    with pytest.raises(RefreshFailed):
        await parts.refresh.refresh(account_id, reason="test")

    assert (await parts.open_intents() == [account_id]) is remembered


async def test_a_dead_refresh_token_means_signing_in_again_with_the_reason_in_the_history(parts):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, tokens="end_families")

    with pytest.raises(RefreshDead) as failure:
        await parts.refresh.refresh(account_id, reason="test")

    account = await parts.accounts.get(account_id)
    assert failure.value.code == "refresh_token_invalidated"
    assert (account.status, account.status_reason) == ("reauth_required", "refresh_token_invalidated")
    assert await parts.open_intents() == []


@pytest.mark.parametrize("code", ["account_deactivated", "account_suspended", "account_deleted"])
async def test_a_closed_account_is_deactivated(parts, code):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, simulate=f"status=401, code={code}", on="refresh")

    with pytest.raises(RefreshDead):
        await parts.refresh.refresh(account_id, reason="test")

    assert (await parts.accounts.get(account_id)).status == "deactivated"


async def test_a_permanent_failure_does_not_touch_a_row_that_holds_a_newer_token(parts, monkeypatch):
    account_id, _simulated = await parts.sign_in()
    exchange = parts.auth_server.refresh

    async def meanwhile_somebody_signs_in(refresh_token):
        tokens = await exchange(refresh_token)
        account = await parts.accounts.get(account_id)
        await parts.accounts.accept(sign_in(tokens, account_id=account.upstream_account_id), source="imported")
        return await exchange(refresh_token)  # single use: refused as reused

    monkeypatch.setattr(parts.auth_server, "refresh", meanwhile_somebody_signs_in)
    outcome = await parts.refresh.refresh(account_id, reason="test")

    account = await parts.accounts.get(account_id)
    assert account.status == "active"
    assert outcome.credential_version == account.credential_version == 2
    assert not outcome.rotated


async def test_a_permanent_failure_counts_when_the_same_token_was_only_encrypted_anew(parts, monkeypatch):
    account_id, simulated = await parts.sign_in()
    await parts.simulator.change(simulated, tokens="end_families")
    exchange = parts.auth_server.refresh

    async def meanwhile_encrypted_anew(refresh_token):
        async with parts.database.write() as session:
            account = await parts.accounts.load(session, account_id)
            account.refresh_token = parts.vault.encrypt(refresh_token)
            session.add(account)
        return await exchange(refresh_token)

    monkeypatch.setattr(parts.auth_server, "refresh", meanwhile_encrypted_anew)
    with pytest.raises(RefreshDead):
        await parts.refresh.refresh(account_id, reason="test")

    assert (await parts.accounts.get(account_id)).status == "reauth_required"


async def test_a_sign_in_during_the_exchange_wins_over_the_rotated_token(parts, monkeypatch):
    account_id, _ = await parts.sign_in()
    exchange = parts.auth_server.refresh

    async def meanwhile_somebody_signs_in(refresh_token):
        tokens = await exchange(refresh_token)
        account = await parts.accounts.get(account_id)
        other = Tokens(access_token="a.b.c", refresh_token="another family")
        signed_in = sign_in(other, account_id=account.upstream_account_id)
        async with parts.database.write() as session:
            row = await parts.accounts.load(session, account_id)
            parts.accounts._store_tokens(row, signed_in)
            session.add(row)
        return tokens

    monkeypatch.setattr(parts.auth_server, "refresh", meanwhile_somebody_signs_in)
    await parts.refresh.refresh(account_id, reason="test")

    account = await parts.accounts.get(account_id)
    assert account.refresh_token_sha256 == fingerprint("another family")


async def test_a_paused_account_stays_paused_whatever_its_refresh_says(parts):
    account_id, simulated = await parts.sign_in()
    await parts.accounts.pause(account_id)
    await parts.simulator.change(simulated, tokens="end_families")

    with pytest.raises(RefreshDead):
        await parts.refresh.refresh(account_id, reason="test")
    paused = (await parts.accounts.get(account_id)).status
    resumed = await parts.accounts.resume(account_id)

    assert paused == "paused"
    assert (resumed.status, resumed.status_reason) == ("reauth_required", "refresh_token_invalidated")


async def test_the_refresh_beyond_the_stage_is_refused_at_once_without_blame(parts):
    account_id, _ = await parts.sign_in()
    full = MemoryAdmission([ResourceSettings(name="stages/token_refresh", limit=1)])
    refresh = parts.new_refresh(admission=full)

    async with full.acquire(["stages/token_refresh"]):
        with pytest.raises(RefreshOverloaded):
            await refresh.refresh(account_id, reason="test")
    refreshed = await refresh.refresh(account_id, reason="test")

    assert refreshed.rotated  # the refusal was not remembered
    assert (await parts.accounts.get(account_id)).status == "active"
    assert await parts.simulator.exchanges() == [1]


async def test_while_admission_is_away_a_local_semaphore_of_the_same_size_stands_in(parts):
    first, _ = await parts.sign_in()
    second, _ = await parts.sign_in()
    away = MemoryAdmission()
    away.ready = False
    seats = LocalSeats(lambda: 1)
    refresh = parts.new_refresh(admission=away, local_seats=seats)

    refreshed = await refresh.refresh(first, reason="test")
    seats.take()
    with pytest.raises(RefreshOverloaded):
        await refresh.refresh(second, reason="test")

    assert refreshed.rotated
    assert seats.held == 1


@pytest.mark.parametrize("reason", [DenialReason.POLICY_UNAVAILABLE, DenialReason.RECOVERING])
async def test_a_server_that_cannot_count_yet_counts_as_away(parts, reason):
    account_id, _ = await parts.sign_in()
    parts.admission.refuse_next("stages/token_refresh", Denial(reason=reason))

    refreshed = await parts.refresh.refresh(account_id, reason="test")

    assert refreshed.rotated


async def test_the_seat_is_given_back_when_the_database_cannot_be_opened(parts, monkeypatch):
    account_id, _ = await parts.sign_in()

    async def no_intent(_flight, _key):
        raise DatabaseBusy("locked", retry_after=2)

    monkeypatch.setattr(parts.refresh, "_begin", no_intent)
    with pytest.raises(DatabaseBusy) as told:
        await parts.refresh.refresh(account_id, reason="test")

    assert told.value.retry_after == 2
    assert problem_of(told.value).status == 503
    assert not parts.admission.held
    assert await parts.simulator.exchanges() == []


async def test_a_rotated_token_waits_in_memory_until_the_database_takes_it(parts, monkeypatch):
    account_id, _ = await parts.sign_in()
    store, refusals = parts.refresh._try_store, 3

    async def locked_for_a_while(*arguments):
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise DatabaseBusy("locked")
        return await store(*arguments)

    monkeypatch.setattr(parts.refresh, "_try_store", locked_for_a_while)
    refreshed = await parts.refresh.refresh(account_id, reason="test")

    assert refreshed.rotated
    assert (await parts.accounts.get(account_id)).credential_version == 2


async def test_closing_lets_an_exchange_finish_and_a_new_service_starts_from_nothing(parts, gate):
    account_id, simulated = await parts.sign_in()
    caller = asyncio.create_task(parts.refresh.refresh(account_id, reason="test"))
    await eventually(lambda: exchanging(parts))

    closing = asyncio.create_task(parts.refresh.close())
    gate.set()
    await closing
    await parts.simulator.change(simulated, simulate="status=500", on="refresh", times=1)
    restarted, again = parts.new_refresh(), parts.new_refresh()
    with pytest.raises(RefreshFailed):
        await restarted.refresh(account_id, reason="test")

    assert (await caller).rotated
    assert not parts.refresh._flights
    assert (await again.refresh(account_id, reason="test")).rotated  # it remembers no failure of another


async def test_an_account_without_a_refresh_token_cannot_be_refreshed(parts):
    async with parts.database.write() as session:
        session.add(
            Account(
                id="key_account",
                kind="api_key",
                seat_key="k",
                name="n",
                base_url="http://127.0.0.1",
                created_at=0.0,
                status_changed_at=0.0,
                credential_obtained_at=0.0,
            )
        )

    with pytest.raises(Conflict):
        await parts.refresh.refresh("key_account", reason="test")
    with pytest.raises(NotFound):
        await parts.refresh.refresh("nobody", reason="test")
