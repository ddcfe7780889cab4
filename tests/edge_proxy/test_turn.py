"""What a turn asks for, and what its events say."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_proxy.document import known_keys
from edge_proxy.turn import TurnRequest, TurnWatch, affinity_keys, failure_event, opaque_key, turn_resources
from tests.edge_proxy.scripted_upstream import RATE_LIMITS, TURN, completed, created, delta, failed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def watch(*events: dict[str, Any]) -> TurnWatch:
    seen = TurnWatch()
    for event in events:
        seen.observe(event["type"], orjson.dumps(event))
    return seen


def test_a_body_is_read_for_what_matters_here():
    document = {
        "model": "m",
        "stream": True,
        "previous_response_id": "resp_1",
        "prompt_cache_key": "k",
        "generate": False,
        "input": [{"type": "additional_tools"}, "text", {"type": "compaction_trigger"}],
    }

    turn = TurnRequest.of(known_keys(orjson.dumps(document)))

    assert turn == TurnRequest(
        model="m",
        stream=True,
        previous_response_id="resp_1",
        prompt_cache_key="k",
        compaction=True,
        responses_lite=True,
        warm_up=True,
    )


@given(st.dictionaries(st.sampled_from(["model", "stream", "input", "previous_response_id", "generate"]), JSON))
def test_no_body_is_too_strange_to_be_read(document: dict[str, Any]):
    TurnRequest.of(known_keys(orjson.dumps(document)))


def test_needs_name_owners_and_affinity_strongest_first():
    turn = TurnRequest(model="m", previous_response_id="resp_1", prompt_cache_key="c")

    needs = turn.needs({"thread-id": "t", "session-id": "s", "x-codex-turn-state": "ts"})

    assert needs.affinity_keys == ("thread:t", "session:s", "cache:c")
    assert needs.required_owner_key == "response:resp_1"
    assert needs.preferred_owner_key == "turn:ts"


@pytest.mark.parametrize("name", ["session-id", "session_id", "x-codex-session-id", "x-codex-conversation-id"])
def test_each_session_header_counts(name: str):
    assert affinity_keys({name: "s"}, "") == ("session:s",)


@given(st.text())
def test_an_opaque_key_is_bounded_printable_and_stable(value: str):
    key = opaque_key("turn", value)

    assert len(key.encode("utf-8", "surrogatepass")) <= 128
    assert key.isprintable()
    assert key == opaque_key("turn", value)


def test_seats_are_asked_for_in_the_order_in_which_to_wait():
    stage = "stages/response_create"

    assert turn_resources(stage, with_key=False) == (stage, "accounts/-/streams", "accounts/-/response_creates")
    assert turn_resources("", with_key=True) == ("keys/-/streams", "accounts/-/streams")


def test_telemetry_is_not_visible_and_creation_is():
    telemetry = watch(RATE_LIMITS, {"type": "codex.keepalive"})

    assert (telemetry.visible, telemetry.created) == (False, False)
    assert telemetry.windows
    assert watch(RATE_LIMITS, created("resp_9")).response_id == "resp_9"
    assert watch(created()).visible


def test_a_whole_turn_is_understood():
    seen = watch(*TURN)

    assert (seen.terminal, seen.failed, seen.response_id) == ("response.completed", False, "resp_1")
    assert seen.usage is not None
    assert seen.usage.output_tokens == 7


def test_an_id_behind_much_else_is_found():
    event = {"type": "response.created", "response": {"instructions": "x" * 1000, "id": "resp_far"}}

    assert watch(event).response_id == "resp_far"


def test_a_failure_knows_whether_something_visible_came_before_it():
    assert not watch(RATE_LIMITS, failed("x")).seen_before_failure
    assert watch(created(), failed("x")).seen_before_failure
    assert watch({"type": "error"}).failed


def test_an_incomplete_response_is_an_end_and_no_failure():
    seen = watch(created(), delta("x"), {**completed(), "type": "response.incomplete"})

    assert (seen.terminal, seen.failed) == ("response.incomplete", False)


def test_events_that_are_not_json_do_no_harm():
    seen = TurnWatch()
    seen.observe("response.created", b"{")
    seen.observe("response.completed", b"[1]")

    assert (seen.response_id, seen.terminal) == ("", "response.completed")


def test_an_end_is_written_for_a_turn_that_has_none():
    event = orjson.loads(failure_event({"code": "stream_incomplete", "message": "m"}, response_id="resp_1"))

    assert event["type"] == "response.failed"
    assert event["response"]["id"] == "resp_1"
    assert event["response"]["error"]["code"] == "stream_incomplete"
