"""Numbers and text of strangers, brought within what a message can hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission_client import bounds
from admission_client.bounds import LONGEST_TIME, UINT32_MAX, UINT64_MAX


@pytest.mark.parametrize(
    ("given_seconds", "seconds"),
    [
        (1.5, 1.5),
        (-1.0, 0.0),
        (-math.inf, 0.0),
        (math.inf, LONGEST_TIME),
        (math.nan, LONGEST_TIME),
        (10**400, LONGEST_TIME),
        (-(10**400), 0.0),
    ],
)
def test_lengths_of_time_saturate(given_seconds: float, seconds: float):
    assert bounds.span(given_seconds) == seconds


def test_counts_saturate():
    assert [bounds.uint32(number) for number in (-1, 7, 2**40)] == [0, 7, UINT32_MAX]
    assert [bounds.uint64(number) for number in (-1, 7, 10**30)] == [0, 7, UINT64_MAX]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("plain", "plain"),
        ("a\ud800b", "a?b"),
        ("é" * 100, "é" * 64),
        ("x" * 200, "x" * 128),
        ("x" + "é" * 64, "x" + "é" * 63),
    ],
)
def test_text_keeps_what_can_be_encoded(value: str, kept: str):
    assert bounds.text(value) == kept


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=200), st.integers(0, 140))
def test_any_text_fits(value: str, longest: int):
    assert len(bounds.text(value, longest).encode()) <= longest


@pytest.mark.parametrize("nothing", [None, "7", b"x"])
def test_what_is_no_number_is_an_error(nothing: object):
    with pytest.raises(TypeError):
        bounds.span(nothing)  # type: ignore[arg-type]  # what a careless caller does
