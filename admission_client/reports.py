"""Reports that wait for a stream: merged where nothing is lost by it, and bounded, whatever the outage lasts.

Reports of one account with the same verdict become one: windows and credits are state (the last one counts), usage
adds up. Reports that name owned keys are kept one by one, because each key binds somebody's conversation. One that is
no sound value is dropped with a warning: a backlog is filled when a stream ends, and that must not fail.
"""

from collections.abc import Iterable
from dataclasses import replace

import structlog

from admission_client.bounds import uint64
from admission_client.lease import AccountReport, RateLimitWindow, TokenUsage

log = structlog.get_logger(__name__)


class ReportBacklog:
    """Keeps at most `bound` reports; the oldest go first. `dropped` counts those."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._reports: dict[tuple[object, ...], AccountReport] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._reports)

    def add(self, report: AccountReport) -> None:
        """Keeps a report, merged with what is there."""
        try:
            self._keep(report)
        except Exception as error:  # a list where a tuple should be, say: whatever it is, the others must not suffer
            self.dropped += 1
            log.warning("report dropped: it is malformed", problem=repr(error))

    def add_repeated(self, reports: Iterable[AccountReport]) -> None:
        """Keeps reports that may have arrived already: without their usage, which would be counted twice."""
        for report in reports:
            self.add(report if report.usage is None else replace(report, usage=None))

    def take(self) -> list[AccountReport]:
        """Returns everything and forgets it."""
        reports = list(self._reports.values())
        self._reports.clear()
        return reports

    def _keep(self, report: AccountReport) -> None:
        key = (
            report.account_id,
            report.credential_version,
            report.outcome,
            report.status,
            report.code,
            report.key_sha256,
            report.owned_keys,
        )
        earlier = self._reports.get(key)
        merged = report if earlier is None else _merged(earlier, report)
        self._reports.pop(key, None)  # the latest goes to the end
        self._reports[key] = merged
        if len(self._reports) > self._bound:
            del self._reports[next(iter(self._reports))]
            self.dropped += 1


def _merged(earlier: AccountReport, later: AccountReport) -> AccountReport:
    return replace(
        later,
        resets_after=later.resets_after if later.resets_after is not None else earlier.resets_after,
        usage=_sum(earlier.usage, later.usage),
        windows=_latest(earlier.windows, later.windows),
        credits=later.credits or earlier.credits,
    )


def _sum(one: TokenUsage | None, other: TokenUsage | None) -> TokenUsage | None:
    if one is None or other is None:
        return one or other
    return TokenUsage(
        input_tokens=uint64(one.input_tokens + other.input_tokens),
        cached_input_tokens=uint64(one.cached_input_tokens + other.cached_input_tokens),
        output_tokens=uint64(one.output_tokens + other.output_tokens),
        reasoning_tokens=uint64(one.reasoning_tokens + other.reasoning_tokens),
    )


def _latest(earlier: tuple[RateLimitWindow, ...], later: tuple[RateLimitWindow, ...]) -> tuple[RateLimitWindow, ...]:
    by_length = {window.length: window for window in (*earlier, *later)}
    return tuple(by_length.values())[-8:]
