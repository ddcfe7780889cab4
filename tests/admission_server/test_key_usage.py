from hypothesis import given
from hypothesis import strategies as st

from admission_server.accounts import Outcome, Report, TokenUsage
from admission_server.key_usage import KeyUsageBoard
from admission_server.outbox import AGAIN_AFTER

TOKENS = TokenUsage(input_tokens=7, cached_input_tokens=2, output_tokens=5, reasoning_tokens=1)


def used(outcome=Outcome.SUCCEEDED, usage=TOKENS):
    return Report(account_id="acc_1", outcome=outcome, usage=usage)


def test_what_a_key_uses_adds_up_whatever_the_account():
    board = KeyUsageBoard()
    board.record("key_a", used(), 0.0)
    board.record("key_a", Report(account_id="acc_2", outcome=Outcome.SUCCEEDED, usage=TOKENS), 0.1)
    board.record("key_b", used(Outcome.TRANSIENT_ERROR, None), 0.1)
    told = {counts.key_id: counts for counts in board.take(1.0)}

    assert (told["key_a"].succeeded, told["key_a"].failed) == (2, 0)
    assert told["key_a"].usage == TOKENS + TOKENS
    assert (told["key_b"].succeeded, told["key_b"].failed, told["key_b"].usage) == (0, 1, TokenUsage())


def test_a_use_of_which_nobody_learns_anything_is_not_counted_but_its_tokens_are():
    board = KeyUsageBoard()
    board.record("key_a", used(Outcome.NEUTRAL, None), 0.0)
    silent = board.take(1.0)
    board.record("key_a", used(Outcome.NEUTRAL), 1.0)
    (told,) = board.take(2.0)

    assert not silent
    assert (told.succeeded, told.failed, told.usage) == (0, 0, TOKENS)


class Controller:
    """Stores differences, as the control API does; loses what it was told when it dies before it has stored it."""

    def __init__(self):
        self.seen = 0
        self.total = 0

    def store(self, succeeded):
        self.total += max(0, succeeded - self.seen)
        self.seen = succeeded


STEPS = st.lists(st.sampled_from(["use", "tell", "tell and die", "old again", "wait", "come back"]))


@given(STEPS)
def test_duplicates_reordering_and_restarts_of_the_controller_count_nothing_twice_and_lose_nothing(steps):
    board, controller = KeyUsageBoard(), Controller()
    now, uses = 0.0, 0
    told = []
    for step in steps:
        now += 0.3
        match step:
            case "use":
                uses += 1
                board.record("key_a", used(), now)
            case "tell" | "tell and die":
                for counts in board.take(now):
                    if step == "tell":
                        controller.store(counts.succeeded)
                        told.append(counts)
                        board.acknowledge([counts.sequence])
            case "old again" if told:
                # A message that was overtaken: its acknowledgement must not settle what came later.
                board.acknowledge([told[0].sequence])
            case "wait":
                now += AGAIN_AFTER
            case "come back":
                board.start_over()
    now += AGAIN_AFTER
    board.start_over()
    for counts in board.take(now):
        controller.store(counts.succeeded)
        board.acknowledge([counts.sequence])

    assert controller.total == uses
    assert len(board) == 0
