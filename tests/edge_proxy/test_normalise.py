"""What `/v1` bodies become for the Codex backend."""

import json
from typing import Any

import pytest

from edge_proxy.document import all_keys, written
from edge_proxy.errors import ParameterRefused
from edge_proxy.normalise import backend_body as backend_body_of
from edge_proxy.normalise import compaction_body as compaction_body_of


def backend_body(document: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(written(backend_body_of(all_keys(json.dumps(document)))))
    return body


def compaction_body(document: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(written(compaction_body_of(all_keys(json.dumps(document)))))
    return body


def test_it_is_always_streamed_and_never_stored():
    body = backend_body({"model": "m", "input": [], "store": True, "stream": False})

    assert (body["store"], body["stream"]) == (False, True)


def test_a_text_becomes_one_user_message():
    (message,) = backend_body({"input": "hi"})["input"]

    assert message["role"] == "user"
    assert message["content"] == [{"type": "input_text", "text": "hi"}]


@pytest.mark.parametrize(
    "name",
    ["max_output_tokens", "metadata", "temperature", "top_p", "truncation", "user", "safety_identifier", "seed"],
)
def test_what_the_backend_refuses_is_left_out(name: str):
    assert name not in backend_body({"model": "m", "input": [], name: 1})


def test_unknown_keys_tools_and_items_pass():
    document = {"model": "m", "input": [{"type": "new_item"}], "tools": [{"type": "new_tool"}], "new_key": {"a": 1}}

    body = backend_body(document)

    assert {name: body[name] for name in document} == document


def test_a_preview_tool_gets_its_name():
    assert backend_body({"tools": [{"type": "web_search_preview", "x": 1}]})["tools"] == [
        {"type": "web_search", "x": 1}
    ]


@pytest.mark.parametrize("kind", ["file_search", "code_interpreter", "computer_use", "image_generation"])
def test_a_tool_that_cannot_work_is_refused_by_name(kind: str):
    with pytest.raises(ParameterRefused) as refused:
        backend_body({"tools": [{"type": "function"}, {"type": kind}]})

    assert refused.value.param == "tools[1].type"


def test_an_unknown_include_is_refused():
    assert backend_body({"include": ["reasoning.encrypted_content"]})["include"] == ["reasoning.encrypted_content"]
    with pytest.raises(ParameterRefused):
        backend_body({"include": ["everything"]})


def test_two_continuations_exclude_each_other():
    with pytest.raises(ParameterRefused):
        backend_body({"previous_response_id": "resp_1", "conversation": "conv_1"})


def test_the_fast_tier_has_another_name_there():
    assert backend_body({"service_tier": "fast"})["service_tier"] == "priority"
    assert backend_body({"service_tier": "flex"})["service_tier"] == "flex"


@pytest.mark.parametrize("given", [[{"type": "message"}], [{"type": "message"}, {"type": "compaction_trigger"}]])
def test_a_compaction_is_a_turn_whose_last_item_asks_for_it(given: list[dict[str, str]]):
    assert compaction_body({"input": given})["input"] == [{"type": "message"}, {"type": "compaction_trigger"}]


def test_numbers_that_no_float_can_hold_go_on_as_they_came():
    sent = b'{"input":[{"n":123456789012345678901234567890}],"tools":[{"type":"web_search_preview","n":1.10e999}]}'

    body = written(backend_body_of(all_keys(sent)))

    assert b"123456789012345678901234567890" in body
    assert b"1.10e999" in body
