from admission_server.accounts import Credits, Outcome, RateLimitWindow, Report, TokenUsage, Verdict
from admission_server.signals import SignalBoard

TELL = Verdict(concerns_status=True)
QUIET = Verdict()


def succeeded(account_id="acc_1", **fields):
    return Report(account_id=account_id, outcome=Outcome.SUCCEEDED, **fields)


def test_an_account_is_sent_at_most_once_a_second():
    board = SignalBoard()
    board.record(succeeded(), QUIET, 0.0)
    first = board.take(0.0)
    board.record(succeeded(), QUIET, 0.1)
    too_early = board.take(0.9)
    second = board.take(1.0)

    assert [signal.succeeded for signal in first] == [1]
    assert not too_early
    assert [signal.succeeded for signal in second] == [2]


def test_a_change_of_status_is_sent_at_once():
    board = SignalBoard()
    board.record(succeeded(), QUIET, 0.0)
    board.take(0.0)
    board.record(Report(account_id="acc_1", outcome=Outcome.QUOTA_EXCEEDED, resets_after=60.0), TELL, 0.1)
    (signal,) = board.take(0.1)

    assert signal.event is not None
    assert signal.event.report.outcome is Outcome.QUOTA_EXCEEDED
    assert signal.resets_after == 60.0
    assert signal.failed == 1


def test_a_signal_is_sent_again_until_it_is_acknowledged():
    board = SignalBoard()
    board.record(succeeded(), QUIET, 0.0)
    (first,) = board.take(0.0)
    (again,) = board.take(5.0)
    board.acknowledge([first.sequence])

    assert again.sequence == first.sequence
    assert not board.take(20.0)
    assert len(board) == 0


def test_an_acknowledgement_of_an_older_state_leaves_the_newer_pending():
    board = SignalBoard()
    board.record(succeeded(), QUIET, 0.0)
    (first,) = board.take(0.0)
    board.record(succeeded(), QUIET, 0.5)
    board.acknowledge([first.sequence])
    (second,) = board.take(1.0)

    assert second.succeeded == 2


def test_a_new_controller_is_told_everything_at_once():
    board = SignalBoard()
    board.record(succeeded("acc_1"), QUIET, 0.0)
    board.record(succeeded("acc_2"), QUIET, 0.0)
    board.take(0.0)
    board.start_over()

    assert {signal.account_id for signal in board.take(0.1)} == {"acc_1", "acc_2"}


def test_nothing_piles_up_while_nobody_listens():
    board = SignalBoard()
    for i in range(10_000):
        board.record(succeeded(usage=TokenUsage(input_tokens=1)), QUIET, i / 100)
    signals = board.take(100.0)

    assert len(signals) == 1
    assert (signals[0].succeeded, signals[0].usage.input_tokens) == (10_000, 10_000)


def test_a_refresh_that_is_asked_for_is_not_forgotten_because_of_a_429_after_it():
    board = SignalBoard()
    wanted = Verdict(concerns_status=True, refresh_wanted=True)
    board.record(Report(account_id="acc_1", outcome=Outcome.AUTH_REJECTED, credential_version=3), wanted, 0.0)
    board.record(Report(account_id="acc_1", outcome=Outcome.RATE_LIMITED), TELL, 0.1)
    (signal,) = board.take(0.2)
    board.acknowledge([signal.sequence])
    board.record(Report(account_id="acc_1", outcome=Outcome.RATE_LIMITED), TELL, 2.0)
    (later,) = board.take(2.0)

    assert signal.event is not None
    assert signal.event.refresh_wanted
    assert later.event is not None
    assert later.event.report.outcome is Outcome.RATE_LIMITED


def test_windows_are_known_by_their_length_and_age():
    board = SignalBoard()
    five_hours = RateLimitWindow(length=18000.0, used_percent=40.0, resets_after=100.0)
    week = RateLimitWindow(length=604800.0, used_percent=10.0)
    board.record(succeeded(windows=(five_hours, week), credits=Credits(has_credits=True)), QUIET, 0.0)
    board.record(succeeded(windows=(RateLimitWindow(length=604800.0, used_percent=11.0),)), QUIET, 30.0)
    (signal,) = board.take(40.0)

    assert {(w.length, w.used_percent, w.resets_after) for w in signal.windows} == {
        (18000.0, 40.0, 70.0), (604800.0, 11.0, None),
    }  # fmt: skip
    assert signal.windows_age == 10.0
    assert signal.credits == Credits(has_credits=True)


def test_an_account_is_settled_once_its_last_status_event_is_acknowledged():
    board = SignalBoard()
    board.record(Report(account_id="acc_1", outcome=Outcome.ACCOUNT_DISABLED), TELL, 0.0)
    before = board.settled()
    (signal,) = board.take(0.0)
    board.acknowledge([signal.sequence])

    assert not before
    assert board.settled() == {"acc_1"}


def test_accounts_that_are_gone_are_forgotten():
    board = SignalBoard()
    board.record(succeeded("acc_1"), QUIET, 0.0)
    board.keep_only(["acc_2"])

    assert not board.take(10.0)
