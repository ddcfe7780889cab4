from dataclasses import replace
from typing import Any

import pytest

from admission_server.accounts import AUTH_COOLDOWN, NEVER, Account, Outcome, Report, Standing
from admission_server.policy import AccountPolicy, Status

NOW = 1000.0


def account(**fields):
    values: dict[str, Any] = {"account_id": "acc_1", "kind": "chatgpt", "access_token": "t1", "credential_version": 1}
    return Account(AccountPolicy(**(values | fields)), NOW)


def report(outcome, **fields):
    return Report(account_id="acc_1", outcome=outcome, **({"credential_version": 1} | fields))


def standing(who, now=NOW):
    return who.standing(now)[0]


def test_an_active_account_with_a_credential_serves():
    assert account().standing(NOW) == (Standing.SERVING, NEVER)


@pytest.mark.parametrize("status", [Status.PAUSED, Status.REAUTH_REQUIRED, Status.DEACTIVATED])
def test_an_account_that_is_out_serves_nobody(status):
    assert standing(account(status=status)) is Standing.OUT


def test_a_rate_limit_of_the_controller_ends_by_itself():
    who = account(status=Status.RATE_LIMITED, blocked_for=60.0)

    assert who.standing(NOW) == (Standing.COOLING, NOW + 60)
    assert standing(who, NOW + 60) is Standing.SERVING


def test_a_rate_limit_for_longer_than_minutes_is_a_used_up_quota():
    assert standing(account(status=Status.RATE_LIMITED, blocked_for=3600.0)) is Standing.QUOTA


def test_a_token_past_its_own_expiry_is_not_granted():
    who = account(credential_expires_in=30.0)

    assert standing(who) is Standing.SERVING
    assert standing(who, NOW + 30) is Standing.NO_CREDENTIAL


def test_a_429_with_a_time_blocks_until_then():
    who = account()
    verdict = who.apply(report(Outcome.RATE_LIMITED, resets_after=45.0), NOW)

    assert verdict.concerns_status
    assert who.standing(NOW) == (Standing.COOLING, NOW + 45)


def test_a_429_without_a_time_is_a_burst_and_blocks_for_seconds():
    who = account()
    who.apply(report(Outcome.RATE_LIMITED), NOW)
    _, first = who.standing(NOW)
    who.apply(report(Outcome.RATE_LIMITED), NOW)
    _, same_burst = who.standing(NOW)
    who.apply(report(Outcome.RATE_LIMITED), first)
    _, second = who.standing(first)

    assert first == same_burst == NOW + 2
    assert second == first + 4


def test_a_used_up_quota_blocks_until_its_reset():
    who = account()
    who.apply(report(Outcome.QUOTA_EXCEEDED, resets_after=7200.0), NOW)

    assert who.standing(NOW) == (Standing.QUOTA, NOW + 7200)


def test_three_transient_errors_block_for_30_seconds_doubling_to_300():
    who = account()
    blocks = []
    now = NOW
    for _ in range(8):
        who.apply(report(Outcome.TRANSIENT_ERROR), now)
        kind, until = who.standing(now)
        blocks.append(until - now if kind is Standing.COOLING else 0)
        now = max(now, until if kind is Standing.COOLING else now)

    assert blocks == [0, 0, 30, 60, 120, 240, 300, 300]


def test_a_success_forgets_errors():
    who = account()
    who.apply(report(Outcome.TRANSIENT_ERROR), NOW)
    who.apply(report(Outcome.TRANSIENT_ERROR), NOW)
    who.apply(report(Outcome.SUCCEEDED), NOW)
    who.apply(report(Outcome.TRANSIENT_ERROR), NOW)

    assert standing(who) is Standing.SERVING


def test_the_first_rejection_of_a_version_asks_for_one_refresh_and_the_version_is_never_granted_again():
    who = account()
    first = who.apply(report(Outcome.AUTH_REJECTED, status=401), NOW)
    second = who.apply(report(Outcome.AUTH_REJECTED, status=401), NOW)

    assert first.refresh_wanted
    assert not second.refresh_wanted
    assert not second.concerns_status
    assert standing(who) is Standing.NO_CREDENTIAL
    assert standing(who, NOW + 1e6) is Standing.NO_CREDENTIAL


def test_a_newer_version_serves_again():
    who = account()
    who.apply(report(Outcome.AUTH_REJECTED), NOW)
    newer = AccountPolicy(account_id="acc_1", kind="chatgpt", access_token="t2", credential_version=2)
    who.revise(newer, NOW + 1, acknowledged=False)

    assert standing(who, NOW + 1) is Standing.SERVING


def test_a_rejection_of_an_old_version_says_nothing_about_the_new_one():
    who = account(credential_version=2)

    assert not who.apply(report(Outcome.AUTH_REJECTED, credential_version=1), NOW).concerns_status
    assert standing(who) is Standing.SERVING


def test_a_rejection_just_after_a_success_of_the_same_version_is_the_requests_fault():
    who = account()
    who.apply(report(Outcome.SUCCEEDED), NOW)
    verdict = who.apply(report(Outcome.AUTH_REJECTED), NOW + 9.9)

    assert not verdict.concerns_status
    assert standing(who, NOW + 9.9) is Standing.SERVING
    assert who.apply(report(Outcome.AUTH_REJECTED), NOW + 10).refresh_wanted


def test_a_version_that_was_obtained_just_now_is_not_refreshed_but_cooled_down():
    who = account()
    who.revise(
        AccountPolicy(account_id="acc_1", kind="chatgpt", access_token="t2", credential_version=2),
        NOW,
        acknowledged=False,
    )
    verdict = who.apply(report(Outcome.AUTH_REJECTED, credential_version=2), NOW + 599)

    assert not verdict.refresh_wanted
    assert who.standing(NOW + 599) == (Standing.NO_CREDENTIAL, NOW + 599 + AUTH_COOLDOWN)
    assert standing(who, NOW + 599 + AUTH_COOLDOWN) is Standing.SERVING


def test_after_a_restart_the_controller_says_how_old_the_first_version_is():
    young, old = account(refreshed_ago=540.0), account(refreshed_ago=541.0)
    young_verdict = young.apply(report(Outcome.AUTH_REJECTED), NOW + 59)
    old_verdict = old.apply(report(Outcome.AUTH_REJECTED), NOW + 59)

    assert (young_verdict.refresh_wanted, old_verdict.refresh_wanted) == (False, True)
    assert young.standing(NOW + 59) == (Standing.NO_CREDENTIAL, NOW + 59 + AUTH_COOLDOWN)
    assert standing(young, NOW + 59 + AUTH_COOLDOWN) is Standing.SERVING
    assert old.standing(NOW + 59 + AUTH_COOLDOWN) == (Standing.NO_CREDENTIAL, NEVER)


def test_a_cooldown_of_the_controller_does_not_hide_that_the_credential_was_rejected():
    who = account(kind="api_key")
    who.apply(report(Outcome.AUTH_REJECTED), NOW)
    who.revise(replace(who.policy, blocked_for=AUTH_COOLDOWN), NOW + 1, acknowledged=True)

    assert who.standing(NOW + 1) == (Standing.NO_CREDENTIAL, NOW + 1 + AUTH_COOLDOWN)


def test_a_newer_credential_ends_the_cooldown_of_a_rejected_one():
    who = account(kind="api_key")
    who.apply(report(Outcome.AUTH_REJECTED), NOW)
    who.revise(replace(who.policy, access_token="t2", credential_version=2), NOW + 1, acknowledged=True)

    assert standing(who, NOW + 1) is Standing.SERVING


def test_a_permanent_code_on_a_fresh_version_needs_somebody_to_sign_in():
    who = account(kind="api_key")
    who.apply(report(Outcome.AUTH_REJECTED, code="token_invalidated"), NOW)

    assert who.status is Status.REAUTH_REQUIRED
    assert standing(who) is Standing.OUT


def test_an_api_key_account_is_never_refreshed():
    who = account(kind="api_key")
    verdict = who.apply(report(Outcome.AUTH_REJECTED), NOW)

    assert not verdict.refresh_wanted
    assert who.standing(NOW) == (Standing.NO_CREDENTIAL, NOW + AUTH_COOLDOWN)


def test_a_disabled_account_is_out_until_the_controller_has_judged_the_report():
    who = account()
    who.apply(report(Outcome.ACCOUNT_DISABLED), NOW)
    who.revise(who.policy, NOW, acknowledged=False)
    before = standing(who)
    who.revise(who.policy, NOW, acknowledged=True)

    assert before is Standing.OUT
    assert standing(who) is Standing.SERVING


def test_a_change_of_weight_does_not_end_a_cooldown_and_a_resume_does():
    who = account()
    who.apply(report(Outcome.RATE_LIMITED, resets_after=60.0), NOW)
    same = AccountPolicy(account_id="acc_1", kind="chatgpt", access_token="t1", credential_version=1, weight=9.0)
    who.revise(same, NOW, acknowledged=False)
    cooling = standing(who)
    paused = AccountPolicy(
        account_id="acc_1", kind="chatgpt", access_token="t1", credential_version=1, status=Status.PAUSED
    )
    who.revise(paused, NOW, acknowledged=False)
    who.revise(same, NOW, acknowledged=False)

    assert cooling is Standing.COOLING
    assert standing(who) is Standing.SERVING


def test_neutral_outcomes_change_nothing():
    who = account()
    for outcome in (Outcome.NEUTRAL, Outcome.UNSPECIFIED):
        assert not who.apply(report(outcome), NOW).concerns_status

    assert standing(who) is Standing.SERVING


def test_a_secret_stays_out_of_repr():
    assert "t1" not in repr(account().policy)
    assert "t1" not in repr(account().credential)
