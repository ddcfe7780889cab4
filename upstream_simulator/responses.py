"""What a turn answers, as output items and as the chain of events that carries them. Pure: no clock, no network.

The answer repeats what the user said, so that a person who watches can tell their own turn. A user who says
`run: <command>` gets that command as a tool call, and once its output came back, a message about it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

Json = dict[str, Any]
NewId = Callable[[str], str]

_TOOL_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output", "local_shell_call_output"})
_ECHOED_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What the simulator understands of a turn: the whole conversation, and what is asked of it."""

    model: str
    items: Sequence[Any]
    tools: frozenset[str]
    generate: bool = True
    size: int = 0
    previous_response_id: str | None = None

    @property
    def compacts(self) -> bool:
        """Whether the turn asks for a compaction."""
        last = self.items[-1] if self.items else None
        return isinstance(last, dict) and last.get("type") == "compaction_trigger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A turn's usage."""

    input: int
    cached: int
    output: int

    @property
    def total(self) -> int:
        """Both directions together."""
        return self.input + self.output

    def as_usage(self) -> Json:
        """Returns the `usage` object of a response."""
        return {
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.total,
        }


def read_ask(body: Json, *, earlier: Sequence[Any] = (), size: int = 0) -> Ask:
    """Reads a turn's body. `earlier` are the items that `previous_response_id` stands for."""
    items = [*earlier, *_input_items(body.get("input"))]
    declared = [*_list(body.get("tools"))]
    for item in items:
        if isinstance(item, dict) and item.get("type") == "additional_tools":
            declared.extend(_list(item.get("tools")))
    return Ask(
        model=str(body.get("model")),
        items=items,
        tools=frozenset(_tool_names(declared)),
        generate=body.get("generate") is not False,
        size=size,
        previous_response_id=body.get("previous_response_id"),
    )


def output_items(ask: Ask, *, new_id: NewId, deltas: int | None = None) -> list[Json]:
    """Returns what the turn answers: nothing for a warm-up, else one item."""
    if not ask.generate:
        return []
    if ask.compacts:
        return [_compaction(ask, new_id)]
    said, output = _last_words(ask.items)
    _, asks_to_run, command = said.partition("run:")
    if asks_to_run and output is None and deltas is None and ask.tools & {"exec_command", "exec"}:
        return [_tool_call(command.strip(), ask.tools, new_id)]
    text = _sentence(said) if output is None else f"The command answered: {output}"
    return [_message(_pieces(text, deltas), new_id)]


def tokens_of(ask: Ask, items: Sequence[Json], *, input_tokens: int | None = None) -> Tokens:
    """Returns the turn's usage: about four bytes a token, as usual."""
    size = ask.size // 4 if input_tokens is None else input_tokens
    output = sum(max(1, len(json.dumps(item)) // 8) for item in items)
    return Tokens(input=size, cached=size // 2 if ask.previous_response_id else 0, output=output)


def response_object(
    ask: Ask, *, response_id: str, created_at: int, items: Sequence[Json] = (), tokens: Tokens | None = None
) -> Json:
    """Returns a `response`: in progress without tokens, completed with them."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "status": "completed" if tokens else "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": ask.model,
        "output": list(items),
        "parallel_tool_calls": True,
        "previous_response_id": ask.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default" if tokens else "auto",
        "store": False,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "usage": tokens.as_usage() if tokens else None,
        "metadata": {},
    }


def event_chain(
    ask: Ask, items: Sequence[Json], tokens: Tokens, *, response_id: str, created_at: int
) -> Iterator[Json]:
    """Yields the events of a turn that goes well, numbered from 0. The last one is its terminal event."""
    begun = response_object(ask, response_id=response_id, created_at=created_at)
    done = response_object(
        ask, response_id=response_id, created_at=created_at, items=[_public(item) for item in items], tokens=tokens
    )
    yield from _numbered(_chain(ask, items, begun, done))


def failed_event(*, response_id: str, created_at: int, code: str, message: str, sequence_number: int) -> Json:
    """Returns the terminal event of a turn that failed after it had begun."""
    return {
        "type": "response.failed",
        "sequence_number": sequence_number,
        "response": {
            "id": response_id,
            "object": "response",
            "created_at": created_at,
            "status": "failed",
            "error": {"code": code, "message": message},
            "incomplete_details": None,
            "output": [],
            "usage": None,
        },
    }


def incomplete_event(*, response_id: str, created_at: int, reason: str, sequence_number: int) -> Json:
    """Returns the terminal event of a turn that was ended early."""
    return {
        "type": "response.incomplete",
        "sequence_number": sequence_number,
        "response": {
            "id": response_id,
            "object": "response",
            "created_at": created_at,
            "status": "incomplete",
            "error": None,
            "incomplete_details": {"reason": reason},
            "output": [],
            "usage": None,
        },
    }


def _chain(ask: Ask, items: Sequence[Json], begun: Json, done: Json) -> Iterator[Json]:
    yield {"type": "response.created", "response": begun}
    if not ask.compacts:
        yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(items):
        yield from _item_events(index, item)
    yield {"type": "response.completed", "response": done}


def _item_events(index: int, item: Json) -> Iterator[Json]:
    shown = _public(item)
    begun = {**shown, **({"status": "in_progress"} if "status" in shown else {})}
    between = _EVENTS_BETWEEN.get(item["type"])
    if between is not None:
        begun[between.grows] = [] if between.grows == "content" else ""
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    if between is not None:
        yield from between.events(index, item)
    yield {"type": "response.output_item.done", "output_index": index, "item": shown}


def _message_events(index: int, item: Json) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part = item["content"][0]
    yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
    for piece in item["_pieces"]:
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}


def _function_call_events(index: int, item: Json) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": index}
    yield {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]}
    yield {"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"]}


def _custom_tool_call_events(index: int, item: Json) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": index}
    yield {"type": "response.custom_tool_call_input.delta", **place, "delta": item["input"]}
    yield {"type": "response.custom_tool_call_input.done", **place, "input": item["input"]}


@dataclass(frozen=True, slots=True)
class _Between:
    """How an item grows between its two events: which field, and by which events."""

    grows: str
    events: Callable[[int, Json], Iterator[Json]]


_EVENTS_BETWEEN = {
    "message": _Between("content", _message_events),
    "function_call": _Between("arguments", _function_call_events),
    "custom_tool_call": _Between("input", _custom_tool_call_events),
}


def _numbered(events: Iterator[Json]) -> Iterator[Json]:
    for number, event in enumerate(events):
        yield {"type": event["type"], "sequence_number": number, **event}


def _public(item: Json) -> Json:
    return {key: value for key, value in item.items() if key != "_pieces"}


def _message(pieces: list[str], new_id: NewId) -> Json:
    text = "".join(pieces)
    return {
        "id": new_id("msg"),
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}],
        "_pieces": pieces,
    }


def _tool_call(command: str, tools: frozenset[str], new_id: NewId) -> Json:
    if "exec_command" in tools:
        return {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "completed",
            "call_id": new_id("call"),
            "name": "exec_command",
            "arguments": json.dumps({"cmd": command}),
        }
    script = f"const r = await tools.exec_command({json.dumps({'cmd': command})}); text(JSON.stringify(r));"
    return {
        "id": new_id("ctc"),
        "type": "custom_tool_call",
        "status": "completed",
        "call_id": new_id("call"),
        "name": "exec",
        "input": script,
    }


def _compaction(ask: Ask, new_id: NewId) -> Json:
    digest = hashlib.sha256(json.dumps(ask.items[:-1], sort_keys=True).encode()).hexdigest()
    return {"id": new_id("cmp"), "type": "compaction", "encrypted_content": f"sim1.{len(ask.items) - 1}.{digest}"}


def _sentence(said: str) -> str:
    words = " ".join(said.split())
    if len(words) > _ECHOED_CHARACTERS:
        words = words[:_ECHOED_CHARACTERS] + "…"
    heard = f"You said “{words}”." if words else "You said nothing."
    return f"{heard} The sluice is open: these words come through it one by one, and then its seat is free again."


def _pieces(text: str, deltas: int | None) -> list[str]:
    words = text.split(" ")
    pieces = [words[0], *(f" {word}" for word in words[1:])]
    if deltas is None:
        return pieces
    return list(islice(cycle([*pieces[1:], "\n" + pieces[0]]), deltas)) if deltas > len(pieces) else pieces[:deltas]


def _last_words(items: Sequence[Any]) -> tuple[str, str | None]:
    """Returns what the user said last, and the output of a tool that ran since; None when none ran.

    A compaction that came since stands for the outputs it swallowed, or a command would run again and again.
    """
    output = None
    for item in reversed(items):
        if not isinstance(item, dict):
            continue
        if item.get("type") in _TOOL_OUTPUTS and output is None:
            output = _plain_output(item.get("output"))
        elif item.get("type") == "compaction" and output is None:
            output = "(that was compacted away)"
        elif item.get("role") == "user":
            return _text(item.get("content")), output
    return "", output


def _plain_output(output: Any) -> str:
    text = _text(output)
    return text.rpartition("Output:\n")[2].strip()


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(
        part["text"] for part in _list(content) if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def _tool_names(tools: Sequence[Any]) -> Iterator[str]:
    for tool in tools:
        if isinstance(tool, dict):
            if isinstance(tool.get("name"), str):
                yield tool["name"]
            yield from _tool_names(_list(tool.get("tools")))


def _input_items(value: Any) -> list[Any]:
    return [{"type": "message", "role": "user", "content": value}] if isinstance(value, str) else _list(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
