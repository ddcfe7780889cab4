"""`python -m tests.simulation --seeds N [--first S]`: plays seeds, prints the failing ones with the end of their story.

A failing seed fails again exactly so: `--first SEED --seeds 1`.
"""

import argparse
import sys
import time

from tests.simulation.scenario import Scenario


def main() -> int:
    """Plays the seeds. Returns how many failed, as an exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds")
    parser.add_argument("--stories", action="store_true", help="print the digest of each story")
    options = parser.parse_args()
    failed = turns = 0
    began = time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        outcome = Scenario(seed).play()
        turns += outcome.turns
        if options.stories:
            print(f"seed {seed}: {outcome.story}")
        if outcome.problem:
            failed += 1
            print(f"seed {seed} FAILED: {outcome.problem}", *outcome.tail, sep="\n    ", flush=True)
    elapsed = time.monotonic() - began
    print(f"{options.seeds} seeds, {turns:,} turns, {failed} failed, {elapsed:.1f} s")
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main())
