"""`python -m benchmarks [--seconds N]`: everything there is to measure, one after another."""

import argparse
import logging

import structlog
import uvloop

from benchmarks import admission, edge, turns
from benchmarks.report import Report


def main() -> None:
    """Runs the benchmarks and says at the end what was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each measurement takes")
    seconds: float = parser.parse_args().seconds
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    report = Report()
    uvloop.run(admission.run(report, seconds=seconds))
    uvloop.run(turns.run(report, turns.Load()))
    uvloop.run(edge.run(report, edge.Load()))
    print("\nNot reached: " + ("; ".join(report.missed) or "nothing"))


if __name__ == "__main__":
    main()
