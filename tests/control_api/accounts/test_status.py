import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission_client.policy import AccountStatus
from control_api.accounts.status import PLAUSIBLE_RESET, ROUTABLE, TRANSITIONS, Standing, StatusEvent, after, room_again

NOW = 1_800_000_000.0
events = st.sampled_from(StatusEvent)


def at(status, **more):
    return Standing(status=status, changed_at=NOW - 100, **more)


@pytest.mark.parametrize(("pair", "target"), TRANSITIONS.items(), ids=str)
def test_every_row_of_the_table_is_what_happens(pair, target):
    status, event = pair

    assert after(at(status), event, now=NOW, reason="why").status is target


@given(st.sampled_from(AccountStatus), events)
def test_a_pair_that_is_not_in_the_table_changes_nothing(status, event):
    standing = at(status)

    result = after(standing, event, now=NOW)

    if (status, event) not in TRANSITIONS and status is not AccountStatus.PAUSED:
        assert result is standing


@given(st.lists(events))
def test_only_an_operator_or_a_sign_in_ends_a_pause(happened):
    standing = after(at(AccountStatus.ACTIVE), StatusEvent.PAUSED, now=NOW)
    ends = {StatusEvent.RESUMED, StatusEvent.SIGNED_IN}

    for event in happened:
        if event not in ends:
            standing = after(standing, event, now=NOW)

    assert standing.status is AccountStatus.PAUSED


@given(st.lists(events))
def test_nothing_but_a_sign_in_or_a_revived_credential_ends_reauth_required(happened):
    standing = at(AccountStatus.REAUTH_REQUIRED)
    # A closed account is another matter: an operator may say that it is open again.
    ends = {StatusEvent.SIGNED_IN, StatusEvent.CREDENTIAL_REVIVED, StatusEvent.ACCOUNT_DISABLED}

    for event in happened:
        if event not in ends:
            standing = after(standing, event, now=NOW)

    assert standing.status not in ROUTABLE


@given(st.lists(events))
def test_a_change_always_has_its_time_and_limits_always_have_an_end(happened):
    standing = at(AccountStatus.ACTIVE)

    for event in happened:
        standing = after(standing, event, now=NOW)

    limited = (standing.resume_to or standing.status) in {AccountStatus.RATE_LIMITED, AccountStatus.QUOTA_EXCEEDED}
    assert standing.changed_at in {NOW, NOW - 100}
    assert (standing.reset_at is not None) == limited
    assert (standing.blocked_at is not None) == limited


@pytest.mark.parametrize(
    ("told", "kept"),
    [(NOW + 600, NOW + 600), (None, NOW + 30), (NOW - 5, NOW + 30), (NOW + PLAUSIBLE_RESET + 1, NOW + 30)],
)
def test_a_reset_time_counts_only_when_it_is_plausible(told, kept):
    standing = after(at(AccountStatus.ACTIVE), StatusEvent.RATE_LIMITED, now=NOW, reset_at=told)

    assert standing.reset_at == kept


def test_quota_without_a_reset_time_is_over_in_an_hour():
    standing = after(at(AccountStatus.ACTIVE), StatusEvent.QUOTA_EXCEEDED, now=NOW)

    assert standing.reset_at == NOW + 3_600


def test_what_met_a_paused_account_shows_when_it_is_resumed():
    paused = after(at(AccountStatus.ACTIVE), StatusEvent.PAUSED, now=NOW)
    dead = after(paused, StatusEvent.CREDENTIAL_DEAD, now=NOW, reason="refresh_token_reused")

    resumed = after(dead, StatusEvent.RESUMED, now=NOW)

    assert (resumed.status, resumed.reason) == (AccountStatus.REAUTH_REQUIRED, "refresh_token_reused")


def test_pausing_an_account_that_must_sign_in_does_not_forget_that():
    paused = after(at(AccountStatus.REAUTH_REQUIRED, reason="invalid_grant"), StatusEvent.PAUSED, now=NOW)

    resumed = after(paused, StatusEvent.RESUMED, now=NOW)

    assert (resumed.status, resumed.reason) == (AccountStatus.REAUTH_REQUIRED, "invalid_grant")


@pytest.mark.parametrize(("paused_for", "status"), [(60, AccountStatus.QUOTA_EXCEEDED), (3_601, AccountStatus.ACTIVE)])
def test_a_pause_does_not_shorten_a_limit(paused_for, status):
    quota = after(at(AccountStatus.ACTIVE), StatusEvent.QUOTA_EXCEEDED, now=NOW, reason="usage_limit_reached")
    paused = after(quota, StatusEvent.PAUSED, now=NOW)

    resumed = after(paused, StatusEvent.RESUMED, now=NOW + paused_for)
    again = after(resumed, StatusEvent.RESUMED, now=NOW + paused_for)

    assert resumed.status is status
    if status is AccountStatus.QUOTA_EXCEEDED:
        assert (resumed.reset_at, resumed.blocked_at, resumed.reason) == (NOW + 3_600, NOW, "usage_limit_reached")
    assert (again.status, again.reset_at, again.resume_to) == (AccountStatus.ACTIVE, None, None)


def limited(status=AccountStatus.RATE_LIMITED, *, reset_in=3_600.0):
    return Standing(status=status, changed_at=NOW, blocked_at=NOW, reset_at=NOW + reset_in)


@pytest.mark.parametrize(
    ("standing", "times", "used", "has_credits", "room"),
    [
        pytest.param(limited(), (3_601, 0), None, False, True, id="its time is over"),
        pytest.param(limited(), (60, 60), 10.0, False, True, id="an early reset upstream is honoured"),
        pytest.param(limited(), (60, 60), 100.0, False, False, id="fresh usage that says full shortens nothing"),
        pytest.param(limited(), (60, -1), 10.0, False, False, id="usage told before the limit proves nothing"),
        pytest.param(limited(), (10, 10), 10.0, False, False, id="usage lags behind the refusal"),
        pytest.param(limited(AccountStatus.QUOTA_EXCEEDED), (60, 60), 10.0, False, False, id="quota waits 120 s"),
        pytest.param(limited(AccountStatus.QUOTA_EXCEEDED), (130, 130), 10.0, False, True, id="quota has room again"),
        pytest.param(limited(AccountStatus.QUOTA_EXCEEDED), (130, 130), 100.0, True, True, id="credits are room"),
        pytest.param(Standing(status=AccountStatus.DEACTIVATED), (9_999, 9_999), 0.0, True, False, id="deactivated"),
    ],
)
def test_when_a_limited_account_has_room_again(standing, times, used, has_credits, room):
    elapsed, told_after = times

    found = room_again(
        standing, now=NOW + elapsed, used_percent=used, told_at=NOW + told_after, has_credits=has_credits
    )

    assert found is room
