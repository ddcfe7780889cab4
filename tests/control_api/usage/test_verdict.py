import pytest

from control_api.accounts.status import StatusEvent
from control_api.usage.verdict import Failure, judge_failure

DEACTIVATED = {"error": {"message": "Your OpenAI account has been deactivated, please check your email."}}


@pytest.mark.parametrize(
    ("status", "payload", "another", "failure", "event"),
    [
        (401, {"error": {"code": "account_deactivated"}}, False, Failure.GIVE_UP, StatusEvent.ACCOUNT_DISABLED),
        (401, {"error": "app_session_terminated"}, False, Failure.GIVE_UP, StatusEvent.CREDENTIAL_DEAD),
        (500, {"code": "account_suspended"}, False, Failure.GIVE_UP, StatusEvent.ACCOUNT_DISABLED),
        (401, DEACTIVATED, False, Failure.GIVE_UP, StatusEvent.ACCOUNT_DISABLED),
        (403, DEACTIVATED, False, Failure.GIVE_UP, StatusEvent.ACCOUNT_DISABLED),
        (500, DEACTIVATED, False, Failure.NOTHING, None),
        (401, {"detail": "Unauthorized"}, False, Failure.CREDENTIAL_REFUSED, None),
        (401, {"error": {"code": "token_expired"}}, False, Failure.CREDENTIAL_REFUSED, None),
        (401, None, False, Failure.CREDENTIAL_REFUSED, None),
        (401, {"error": {"code": "token_invalidated"}}, False, Failure.CREDENTIAL_REFUSED, StatusEvent.CREDENTIAL_DEAD),
        (403, {"error": {"code": "token_invalidated"}}, False, Failure.GIVE_UP, StatusEvent.CREDENTIAL_DEAD),
        (402, None, False, Failure.GIVE_UP, StatusEvent.ACCOUNT_DISABLED),
        (403, None, False, Failure.COOL_DOWN, None),
        (404, "not found", False, Failure.MISCONFIGURED, None),
        (404, {"error": {"code": "gone"}}, False, Failure.GIVE_UP, StatusEvent.ACCOUNT_DISABLED),
        (404, {"error": {"code": "gone"}}, True, Failure.MISCONFIGURED, None),
        (408, None, False, Failure.NOTHING, None),
        (429, None, False, Failure.NOTHING, None),
        (503, None, False, Failure.NOTHING, None),
    ],
)
def test_what_a_failed_query_means(status, payload, another, failure, event):
    verdict = judge_failure(status, payload, another_404_lately=another)

    assert (verdict.failure, verdict.event) == (failure, event)
