import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_simulator.faults import NO_FAULTS, Faults, FaultSyntaxError, parse_faults


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", NO_FAULTS),
        (" , ", NO_FAULTS),
        ("hang", Faults(hang_once_begun=True)),
        ("hang=0", Faults(hang=0)),
        ("slow=0.5,events=20", Faults(slow=0.5, events=20)),
        ("cut=3, close=1011", Faults(cut=3, close=1011)),
        (
            "status=429,code=usage_limit_reached,resets-in=30",
            Faults(status=429, code="usage_limit_reached", resets_in=30),
        ),
        ("No-Code, Retry-After=0.5", Faults(no_code=True, retry_after="0.5")),
        ("eof-without-terminal,telemetry-first", Faults(eof_without_terminal=True, telemetry_first=True)),
        ("fail=2,code=server_error,tokens=50000", Faults(fail=2, code="server_error", tokens=50_000)),
    ],
)
def test_a_list_of_words_becomes_faults(text, faults):
    assert parse_faults(text) == faults


@pytest.mark.parametrize(
    "text", ["bogus", "cut", "cut=x", "cut=-1", "status=200", "slow=inf", "slow=nan", "no-code=1", "code=", "close=999"]
)
def test_what_means_nothing_is_an_error_that_names_the_word(text):
    with pytest.raises(FaultSyntaxError) as raised:
        parse_faults(f"events=1, {text}")

    assert raised.value.word == text


@given(st.text())
def test_any_text_is_faults_or_a_syntax_error(text):
    try:
        parsed = parse_faults(text)
    except FaultSyntaxError:
        return

    assert isinstance(parsed, Faults)


def test_a_request_wins_over_its_account():
    wished = Faults(slow=1, cut=2)
    of_account = Faults(slow=9, events=5)

    assert wished.over(of_account) == Faults(slow=1, cut=2, events=5)


@pytest.mark.parametrize(
    ("text", "refuses", "refuses_handshake"),
    [
        ("status=429", True, False),
        ("code=server_error", True, False),
        ("no-code", True, False),
        ("fail=2,code=server_error", False, False),
        ("status=429,handshake", True, True),
        ("status=426", True, True),
        ("handshake", False, False),
    ],
)
def test_a_refusal_meets_the_turn_or_the_handshake(text, refuses, refuses_handshake):
    faults = parse_faults(text)

    assert (faults.refuses, faults.refuses_handshake) == (refuses, refuses_handshake)
