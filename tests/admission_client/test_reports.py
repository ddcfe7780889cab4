"""Reports that wait for a stream: merged where nothing is lost by it, and bounded."""

from admission_client.lease import AccountReport, Credits, Outcome, RateLimitWindow, TokenUsage
from admission_client.reports import ReportBacklog


def report(account_id="acc_1", **fields):
    return AccountReport(account_id=account_id, **fields)


def test_reports_of_the_same_verdict_become_one():
    backlog = ReportBacklog(10)
    backlog.add(
        report(
            usage=TokenUsage(input_tokens=1, output_tokens=2),
            windows=(RateLimitWindow(length=300, used_percent=10),),
            resets_after=7.0,
        )
    )
    backlog.add(
        report(
            usage=TokenUsage(input_tokens=10),
            windows=(RateLimitWindow(length=300, used_percent=20), RateLimitWindow(length=900, used_percent=1)),
            credits=Credits(has_credits=True),
        )
    )

    (merged,) = backlog.take()

    assert merged.usage == TokenUsage(input_tokens=11, output_tokens=2)
    assert [(window.length, window.used_percent) for window in merged.windows] == [(300, 20), (900, 1)]
    assert merged.credits == Credits(has_credits=True)
    assert merged.resets_after == 7.0


def test_different_verdicts_stay_apart():
    backlog = ReportBacklog(10)
    backlog.add(report(outcome=Outcome.SUCCEEDED))
    backlog.add(report(outcome=Outcome.AUTH_REJECTED, credential_version=1))
    backlog.add(report(outcome=Outcome.AUTH_REJECTED, credential_version=2))

    assert len(backlog.take()) == 3


def test_owned_keys_are_never_merged_away():
    backlog = ReportBacklog(10)
    for n in range(3):
        backlog.add(report(owned_keys=(f"resp_{n}",), key_sha256=b"k"))

    assert [kept.owned_keys for kept in backlog.take()] == [("resp_0",), ("resp_1",), ("resp_2",)]


def test_the_oldest_go_when_there_are_too_many():
    backlog = ReportBacklog(2)
    for n in range(5):
        backlog.add(report(f"acc_{n}"))

    assert backlog.dropped == 3
    assert [kept.account_id for kept in backlog.take()] == ["acc_3", "acc_4"]
    assert len(backlog) == 0


def test_what_may_have_arrived_comes_again_without_its_usage():
    backlog = ReportBacklog(2)
    backlog.add_repeated([report(outcome=Outcome.SUCCEEDED, usage=TokenUsage(input_tokens=1))])

    (again,) = backlog.take()

    assert again.outcome is Outcome.SUCCEEDED
    assert again.usage is None


def test_sums_of_usage_saturate():
    backlog = ReportBacklog(2)
    for _ in range(2):
        backlog.add(report(usage=TokenUsage(input_tokens=2**64 - 1)))

    (merged,) = backlog.take()

    assert merged.usage == TokenUsage(input_tokens=2**64 - 1)


def test_what_cannot_be_merged_costs_itself_only():
    backlog = ReportBacklog(10)
    backlog.add(report(usage=TokenUsage(input_tokens=1)))
    backlog.add(report(usage=7))
    backlog.add(report(owned_keys=["no tuple"]))

    assert [kept.usage for kept in backlog.take()] == [TokenUsage(input_tokens=1)]
    assert backlog.dropped == 2
