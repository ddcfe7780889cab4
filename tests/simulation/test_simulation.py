"""Many seeds, each a story of troubles; and a seed is always the same story. `make simulate SEEDS=…` tells more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.scenario import Scenario

SEEDS = 300
CHUNKS = 10


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_nothing_is_lost_leaked_or_granted_twice_whatever_happens(chunk):
    size = SEEDS // CHUNKS
    for seed in range(chunk * size, (chunk + 1) * size):
        outcome = Scenario(seed).play()

        assert not outcome.problem, f"seed {seed}: {outcome.problem}\n" + "\n".join(outcome.tail)


def test_a_seed_tells_the_same_story_in_every_process():
    here = Scenario(7).play().story
    again = Scenario(7).play().story
    elsewhere = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--first", "7", "--seeds", "1", "--stories"],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout

    assert here == again
    assert here in elsewhere


def test_the_stories_are_worth_telling():
    outcomes = [Scenario(seed).play() for seed in range(10)]

    assert sum(outcome.turns for outcome in outcomes) > 100
    assert sum(outcome.refusals for outcome in outcomes) > 50
