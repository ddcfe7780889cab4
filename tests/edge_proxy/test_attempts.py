"""Which account a turn tries next."""

import pytest

from admission_client.errors import Denied
from admission_client.lease import AccountKind, AccountNeeds, Denial, DenialReason, GrantedAccount
from edge_proxy.attempts import CREDENTIAL_WAIT, Attempts, RetryBudget, TryFailed
from edge_proxy.errors import UpstreamAnswered, UpstreamFailed
from edge_proxy.outcome import judge

NEEDS = AccountNeeds(model="m", affinity_keys=("thread:t",))
BOUND = AccountNeeds(required_owner_key="response:r")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def budget(retries: int = 10) -> RetryBudget:
    return RetryBudget(retries, per=60.0, clock=Clock())


def failure(status: int, account: int = 1, *, version: int = 4) -> TryFailed:
    granted = GrantedAccount(
        account_id=f"acc_{account}", kind=AccountKind.CHATGPT, base_url="", credential_version=version
    )
    return TryFailed(judge(status, ""), granted, UpstreamAnswered(status, b""))


def denied(reason: DenialReason) -> Denied:
    return Denied(Denial(reason=reason))


def test_another_account_is_asked_for_and_reattaches():
    attempts = Attempts(NEEDS, budget())

    assert attempts.verdict_on(failure(500)) is None
    assert attempts.needs.avoid_account_ids == ("acc_1",)
    assert attempts.needs.reattach
    assert attempts.needs.affinity_keys == NEEDS.affinity_keys


def test_the_third_account_is_the_last():
    attempts = Attempts(NEEDS, budget())

    verdicts = [attempts.verdict_on(failure(500, account)) for account in (1, 2, 3)]

    assert verdicts[:2] == [None, None]
    assert isinstance(verdicts[2], UpstreamAnswered)


def test_a_fault_of_the_request_is_told_at_once():
    assert isinstance(Attempts(NEEDS, budget()).verdict_on(failure(400)), UpstreamAnswered)


def test_a_bound_turn_does_not_move():
    assert isinstance(Attempts(BOUND, budget()).verdict_on(failure(500)), UpstreamAnswered)


def test_a_bound_turn_waits_once_for_a_newer_credential_of_its_account():
    attempts = Attempts(BOUND, budget())

    assert attempts.verdict_on(failure(401)) is None
    assert attempts.needs.required_account_id == "acc_1"
    assert attempts.needs.newer_than_credential_version == 4
    assert attempts.max_wait == CREDENTIAL_WAIT
    assert isinstance(attempts.verdict_on(failure(401, version=5)), UpstreamFailed)


def test_a_turn_that_finds_nobody_else_waits_for_the_credential():
    attempts = Attempts(NEEDS, budget())
    attempts.verdict_on(failure(401))

    assert attempts.verdict_on(denied(DenialReason.NO_ACCOUNT)) is None
    assert attempts.needs.required_account_id == "acc_1"
    assert attempts.needs.avoid_account_ids == ()
    assert isinstance(attempts.verdict_on(denied(DenialReason.CREDENTIAL_UNAVAILABLE)), UpstreamFailed)


def test_the_first_account_that_rejected_the_turn_is_the_one_to_wait_for():
    attempts = Attempts(NEEDS, budget())
    before = attempts.suspect
    attempts.verdict_on(failure(401, 1))
    attempts.verdict_on(failure(401, 2))
    attempts.verdict_on(denied(DenialReason.COOLING_DOWN))

    assert (before, attempts.suspect) == (False, True)
    assert attempts.needs.required_account_id == "acc_1"


@pytest.mark.parametrize("status", [401, 403])
def test_an_opinion_of_a_credential_is_not_passed_on(status: int):
    error = Attempts(NEEDS, budget(0)).verdict_on(failure(status))

    assert isinstance(error, UpstreamFailed)


def test_a_first_denial_is_told_as_it_is():
    error = denied(DenialReason.NO_ACCOUNT)

    assert Attempts(NEEDS, budget()).verdict_on(error) is error


@pytest.mark.parametrize("reason", [DenialReason.NO_ACCOUNT, DenialReason.ACCOUNT_STREAMS_FULL])
def test_after_a_failed_try_the_upstreams_answer_is_told_rather_than_a_denial(reason: DenialReason):
    attempts = Attempts(NEEDS, budget())
    attempts.verdict_on(failure(429))

    assert isinstance(attempts.verdict_on(denied(reason)), UpstreamAnswered)


def test_a_pool_without_quota_is_told_rather_than_one_accounts_answer():
    attempts = Attempts(NEEDS, budget())
    attempts.verdict_on(failure(429))
    error = denied(DenialReason.QUOTA_EXHAUSTED)

    assert attempts.verdict_on(error) is error


def test_the_budget_forgets_what_is_a_minute_old():
    clock = Clock()
    spending = RetryBudget(2, per=60.0, clock=clock)
    first = [spending.spend() for _ in range(3)]
    clock.now = 60.0

    assert first == [True, True, False]
    assert spending.spend()
