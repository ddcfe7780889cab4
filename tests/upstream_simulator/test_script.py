import pytest

from upstream_simulator.faults import parse_faults
from upstream_simulator.responses import read_ask
from upstream_simulator.script import Ending, write_script
from upstream_simulator.usage import Usage


def script(text, telemetry=()):
    return write_script(
        read_ask({"model": "gpt-5.5", "input": "say hi"}),
        faults=parse_faults(text),
        usage=Usage.of_new_account(plan="plus", now=1000),
        pause=0.5,
        now=1000,
        new_id=lambda kind: f"{kind}_1",
        telemetry=telemetry,
    )


def types(written):
    return [event["type"] for event in written.events]


def test_without_faults_a_turn_completes():
    written = script("events=2")

    assert written.completes
    assert written.ending is Ending.ORDERLY


@pytest.mark.parametrize(
    ("text", "sent", "ending"),
    [
        ("hang", 2, Ending.SILENCE),
        ("hang=4", 4, Ending.SILENCE),
        ("hang=0", 0, Ending.SILENCE),
        ("cut=3", 3, Ending.CUT),
        ("cut=0", 0, Ending.CUT),
        ("close=1011", 0, Ending.CLOSE),
        ("close=1011,cut=2", 2, Ending.CLOSE),
        ("fail=3", 4, Ending.ORDERLY),
        ("events=1,eof-without-terminal", 8, Ending.CLOSE),
    ],
)
def test_a_fault_ends_a_turn_early(text, sent, ending):
    written = script(text)

    assert (len(written.events), written.ending) == (sent, ending)
    assert not written.completes


def test_a_failed_turn_says_so_with_the_code_that_was_asked_for():
    failure = script("fail=2,code=rate_limit_exceeded").events[-1]

    assert failure["type"] == "response.failed"
    assert failure["response"]["error"]["code"] == "rate_limit_exceeded"


def test_telemetry_comes_before_the_turn_and_is_not_its_beginning():
    assert types(script("telemetry-first"))[:2] == ["codex.rate_limits", "response.created"]
    assert types(script("hang", telemetry=[{"type": "codex.rate_limits"}]))[-2:] == [
        "response.created",
        "response.in_progress",
    ]


def test_the_usual_pause_is_between_the_words_and_slow_is_everywhere():
    usual = script("events=3")
    slow = script("events=3,slow=2")

    assert usual.duration == pytest.approx(3 * 0.5)
    assert [slow.pause_before(number) for number in (0, 1, 5)] == [0.0, 2.0, 2.0]


def test_usage_can_be_asked_for():
    assert script("tokens=50000").events[-1]["response"]["usage"]["input_tokens"] == 50_000
