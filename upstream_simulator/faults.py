"""What goes wrong on request: the list of words in a header `x-simulate`, or set for an account. Pure.

A list looks like `slow=0.5, cut=3`. Words and their meaning:

* `hang` silence once the turn has begun · `hang=N` silence after N events · `hang=0` no answer at all
* `slow=S` S seconds between events · `events=N` N text deltas · `tokens=N` usage of N input tokens
* `cut=N` the connection breaks after N events · `close=CODE` (sockets) close with that code, after `cut` events or none
* `fail=N` `response.failed` with `code` after N events · `eof-without-terminal` the stream ends without its last event
* `status=N`, `code=C`, `no-code`, `retry-after=V`, `resets-in=S` the request is refused in these terms
* `handshake` (sockets) the refusal meets the handshake instead of each turn; `status=426` always does
* `telemetry-first` a `codex.rate_limits` event comes before everything else
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

_Read = Callable[[str], Any]


class FaultSyntaxError(ValueError):
    """A list of faults has a word that means nothing, or a value that does not fit its word."""

    def __init__(self, word: str) -> None:
        super().__init__(f"x-simulate: cannot understand {word!r}")
        self.word = word


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What to do to one turn, or to one request. None and False mean: nothing unusual."""

    hang: int | None = None
    hang_once_begun: bool = False
    slow: float | None = None
    events: int | None = None
    tokens: int | None = None
    cut: int | None = None
    close: int | None = None
    fail: int | None = None
    eof_without_terminal: bool = False
    status: int | None = None
    code: str | None = None
    no_code: bool = False
    retry_after: str | None = None
    resets_in: float | None = None
    handshake: bool = False
    telemetry_first: bool = False

    def over(self, other: "Faults") -> "Faults":
        """Returns both together; where they disagree, this one wins."""
        untouched = Faults()
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(other, **{name: value for name, value in mine.items() if value != getattr(untouched, name)})

    @property
    def refuses(self) -> bool:
        """Whether the turn is to be refused before it begins."""
        return self.status is not None or (self.code is not None and self.fail is None) or self.no_code

    @property
    def refuses_handshake(self) -> bool:
        """Whether a WebSocket handshake is to be refused."""
        return self.status == 426 or (self.handshake and self.refuses)

    @property
    def hangs_at_once(self) -> bool:
        """Whether the request is to get no answer at all."""
        return self.hang == 0


NO_FAULTS = Faults()


def parse_faults(text: str) -> Faults:
    """Reads a list of faults. Raises `FaultSyntaxError` for the first word that it cannot understand."""
    found: dict[str, Any] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, has_value, value = word.partition("=")
        name = name.strip().lower()
        try:
            if has_value:
                found[name.replace("-", "_")] = _WITH_VALUE[name](value.strip())
            else:
                found[_ALONE[name]] = True
        except (KeyError, ValueError):
            raise FaultSyntaxError(word) from None
    return Faults(**found)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number


def _status(text: str) -> int:
    number = int(text)
    if not 400 <= number <= 599:
        raise ValueError(text)
    return number


def _close_code(text: str) -> int:
    number = int(text)
    if not 1000 <= number <= 4999:
        raise ValueError(text)
    return number


def _word(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


_WITH_VALUE: dict[str, _Read] = {
    "hang": _count,
    "slow": _seconds,
    "events": _count,
    "tokens": _count,
    "cut": _count,
    "close": _close_code,
    "fail": _count,
    "status": _status,
    "code": _word,
    "retry-after": _word,
    "resets-in": _seconds,
}
_ALONE = {
    "hang": "hang_once_begun",
    "eof-without-terminal": "eof_without_terminal",
    "no-code": "no_code",
    "handshake": "handshake",
    "telemetry-first": "telemetry_first",
}
