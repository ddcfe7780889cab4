"""A turn as it will be played: its events, the pause between them, and how it ends. Pure.

This is where faults change an answer; the HTTP side and the WebSocket side only play what stands here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from upstream_simulator.faults import Faults
from upstream_simulator.responses import Ask, Json, NewId, Tokens, event_chain, failed_event, output_items, tokens_of
from upstream_simulator.usage import Usage


class Ending(Enum):
    """What happens after the last event."""

    ORDERLY = auto()
    CUT = auto()
    CLOSE = auto()
    SILENCE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What to send, and what then. `items` and `tokens` are what the turn produced, for those who remember it."""

    response_id: str
    created_at: int
    events: Sequence[Json]
    ending: Ending
    pause: float
    pauses_everywhere: bool = False
    close_code: int = 1000
    items: Sequence[Json]
    tokens: Tokens

    def pause_before(self, number: int) -> float:
        """Returns the pause before an event: between the pieces of the answer, or wherever `slow` asked for it."""
        everywhere = self.pauses_everywhere and number > 0
        return self.pause if everywhere or self.events[number]["type"].endswith(".delta") else 0.0

    @property
    def duration(self) -> float:
        """The seconds that all pauses take together."""
        return sum(self.pause_before(number) for number in range(len(self.events)))

    @property
    def completes(self) -> bool:
        """Whether the client learns that the turn was completed."""
        return bool(self.events) and self.events[-1]["type"] == "response.completed"


def write_script(
    ask: Ask, *, faults: Faults, usage: Usage, pause: float, now: float, new_id: NewId, telemetry: Sequence[Json] = ()
) -> Script:
    """Returns the script of a turn. `telemetry` goes before its events."""
    response_id = new_id("resp")
    items = output_items(ask, new_id=new_id, deltas=faults.events)
    tokens = tokens_of(ask, items, input_tokens=faults.tokens)
    chain = list(event_chain(ask, items, tokens, response_id=response_id, created_at=int(now)))
    if faults.telemetry_first and not telemetry:
        telemetry = [usage.as_event(now)]
    events, ending = _with_faults([*telemetry, *chain], faults, response_id=response_id, created_at=int(now))
    return Script(
        response_id=response_id,
        created_at=int(now),
        events=events,
        ending=ending,
        pause=pause if faults.slow is None else faults.slow,
        pauses_everywhere=faults.slow is not None,
        close_code=faults.close or 1000,
        items=[{key: value for key, value in item.items() if key != "_pieces"} for item in items],
        tokens=tokens,
    )


def _with_faults(
    events: list[Json], faults: Faults, *, response_id: str, created_at: int
) -> tuple[Sequence[Json], Ending]:
    if faults.hang_once_begun:
        begun = next(number for number, event in enumerate(events) if event["type"] == "response.created")
        return events[: begun + 2], Ending.SILENCE
    if faults.hang is not None:
        return events[: faults.hang], Ending.SILENCE
    if faults.fail is not None:
        return [*events[: faults.fail], _failure(faults, faults.fail, response_id, created_at)], Ending.ORDERLY
    if faults.close is not None:
        return events[: faults.cut or 0], Ending.CLOSE
    if faults.cut is not None:
        return events[: faults.cut], Ending.CUT
    if faults.eof_without_terminal:
        return events[:-1], Ending.CLOSE
    return events, Ending.ORDERLY


def _failure(faults: Faults, number: int, response_id: str, created_at: int) -> dict[str, Any]:
    code = faults.code or "server_error"
    return failed_event(
        response_id=response_id,
        created_at=created_at,
        code=code,
        message="The server had an error while processing your request.",
        sequence_number=number,
    )
