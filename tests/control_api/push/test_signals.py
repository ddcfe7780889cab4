import contextlib
import sqlite3

import pytest

from admission_client.lease import Outcome
from admission_client.policy import AccountSignal, StatusEvent
from control_api.push.signals import SignalReceiver
from control_api.refresh.schedule import is_due


class Waker:
    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1


@pytest.fixture
def waker():
    return Waker()


@pytest.fixture
def receiver(parts, waker):
    return SignalReceiver(
        database=parts.database,
        accounts=parts.accounts,
        usage=parts.usage,
        changes=parts.changes,
        wake_refresh=waker,
        ask_usage=parts.queries.ask_soon,
        metrics=parts.metrics,
        now=parts.clock,
    )


def seen(
    account_id, outcome, *, version=1, status=0, code="", resets_after=None, age=0.0, sequence=1, refresh_wanted=False
):
    event = StatusEvent(
        outcome=outcome,
        credential_version=version,
        status=status,
        code=code,
        resets_after=resets_after,
        age=age,
        refresh_wanted=refresh_wanted,
    )
    return AccountSignal(epoch=1, sequence=sequence, account_id=account_id, status_event=event)


@pytest.fixture
async def account_id(parts):
    found, _ = await parts.sign_in()
    parts.clock.forward(3_600)
    return found


async def test_a_signal_that_comes_again_counts_once(parts, receiver, account_id, waker):
    for sequence in range(5):
        event = seen(account_id, Outcome.AUTH_REJECTED, status=401, age=float(sequence), sequence=sequence)
        await receiver.receive([event])
        parts.clock.forward(1)

    assert await parts.history(account_id) == ["imported", "credential_rejected"]
    assert waker.times == 1
    assert (await parts.accounts.get(account_id)).rejected_version == 1


async def test_who_is_woken_to_refresh_finds_the_rejection_stored(parts, receiver, account_id, tmp_path, monkeypatch):
    found = []

    def look():
        with contextlib.closing(sqlite3.connect(tmp_path / "control.db")) as others_view:
            found.extend(others_view.execute("SELECT rejected_version FROM accounts").fetchall())

    monkeypatch.setattr(receiver, "_wake_refresh", look)
    await receiver.receive([seen(account_id, Outcome.AUTH_REJECTED, status=401)])

    assert found == [(1,)]


async def test_another_event_in_the_same_moment_counts_too(parts, receiver, account_id):
    await receiver.receive([seen(account_id, Outcome.AUTH_REJECTED, status=401)])
    parts.clock.forward(0.2)

    await receiver.receive([seen(account_id, Outcome.QUOTA_EXCEEDED, status=429, code="insufficient_quota")])

    assert (await parts.accounts.get(account_id)).status == "quota_exceeded"


async def test_a_rejection_of_an_older_credential_means_nothing(parts, receiver, account_id, waker):
    await parts.refresh.refresh(account_id, reason="test")
    parts.clock.forward(1_000)

    await receiver.receive([seen(account_id, Outcome.AUTH_REJECTED, version=1, status=401)])

    assert waker.times == 0
    assert (await parts.history(account_id))[-1] == "refreshed"


@pytest.mark.parametrize(
    ("code", "status", "cooling"), [("token_revoked", "reauth_required", False), ("", "active", True)]
)
async def test_a_fresh_credential_that_is_rejected_is_not_refreshed_again(
    parts, receiver, account_id, waker, *, code, status, cooling
):
    await parts.refresh.refresh(account_id, reason="test")
    parts.clock.forward(60)

    await receiver.receive([seen(account_id, Outcome.AUTH_REJECTED, version=2, status=401, code=code)])

    account = await parts.accounts.get(account_id)
    assert waker.times == 0
    assert account.status == status
    assert (account.cooldown_until == parts.clock.now + 300) is cooling


async def test_a_fresh_credential_that_admission_has_given_up_is_refreshed_when_ten_minutes_are_over(
    parts, receiver, account_id
):
    await parts.refresh.refresh(account_id, reason="test")
    refreshed_at = parts.clock.now
    parts.clock.forward(60)

    await receiver.receive([seen(account_id, Outcome.AUTH_REJECTED, version=2, status=401, refresh_wanted=True)])

    account = await parts.accounts.get(account_id)
    account.access_expires_at = refreshed_at + 86_400
    assert account.cooldown_until == parts.clock.now + 300
    assert [is_due(account, refreshed_at + after) for after in (60, 361, 599, 600)] == [False, False, False, True]


async def test_what_happened_before_the_account_signed_in_again_is_history(parts, receiver, account_id):
    await parts.accounts.pause(account_id)
    await parts.accounts.resume(account_id)

    await receiver.receive([seen(account_id, Outcome.QUOTA_EXCEEDED, status=429, code="insufficient_quota", age=60.0)])

    assert (await parts.accounts.get(account_id)).status == "active"


@pytest.mark.parametrize(
    ("outcome", "more", "status"),
    [
        (Outcome.RATE_LIMITED, {"status": 429, "code": "rate_limit_exceeded", "resets_after": 60.0}, "rate_limited"),
        (Outcome.RATE_LIMITED, {"status": 429}, "active"),
        (Outcome.QUOTA_EXCEEDED, {"status": 429, "code": "usage_limit_reached"}, "quota_exceeded"),
        (Outcome.ACCOUNT_DISABLED, {"status": 403, "code": "account_deactivated"}, "deactivated"),
        (Outcome.TRANSIENT_ERROR, {"status": 502}, "active"),
        (Outcome.MISCONFIGURED, {"status": 404}, "active"),
        (Outcome.SUCCEEDED, {"status": 200}, "active"),
    ],
)
async def test_what_traffic_meets_and_what_becomes_of_the_account(
    parts, receiver, account_id, *, outcome, more, status
):
    await receiver.receive([seen(account_id, outcome, **more)])

    account = await parts.accounts.get(account_id)
    assert account.status == status
    assert (account.cooldown_until is not None) == (outcome is Outcome.MISCONFIGURED)


async def test_a_reset_time_is_counted_from_when_the_signal_came(parts, receiver, account_id):
    await receiver.receive(
        [seen(account_id, Outcome.RATE_LIMITED, status=429, code="rate_limit_exceeded", resets_after=90.0)]
    )

    assert (await parts.accounts.get(account_id)).reset_at == parts.clock.now + 90


async def test_an_account_that_is_gone_is_no_trouble(parts, receiver):
    await receiver.receive([seen("nobody", Outcome.AUTH_REJECTED, status=401)])

    assert parts.metrics.registry.get_sample_value("sluicegate_control_signals_total") == 1


async def test_a_clock_that_was_set_back_makes_no_rejection_history(parts, receiver, waker, account_id):
    await receiver.receive([seen(account_id, Outcome.RATE_LIMITED, code="rate_limit_exceeded", resets_after=5.0)])
    parts.clock.forward(-3_600)

    await receiver.receive([seen(account_id, Outcome.AUTH_REJECTED, status=401, sequence=2)])

    assert (await parts.accounts.get(account_id)).rejected_version == 1
    assert waker.times == 1
