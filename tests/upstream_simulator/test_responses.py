from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream_simulator.responses import event_chain, output_items, read_ask, tokens_of

EXEC_COMMAND = [{"type": "function", "name": "exec_command"}]
CODE_MODE = {
    "type": "additional_tools",
    "tools": [{"type": "namespace", "tools": [{"type": "custom", "name": "exec"}]}],
}


def user(text):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def ids():
    numbers = count(1)
    return lambda kind: f"{kind}_{next(numbers)}"


def answer(body, **options):
    ask = read_ask({"model": "gpt-5.5", **body})
    items = output_items(ask, new_id=ids(), **options)
    return ask, items, list(event_chain(ask, items, tokens_of(ask, items), response_id="resp_1", created_at=7))


def test_the_answer_repeats_what_the_user_said():
    _, items, _ = answer({"input": [user("first"), user("say  hi")]})

    assert "“say hi”" in items[0]["content"][0]["text"]


def test_a_text_is_as_good_as_a_list_of_items():
    _, items, _ = answer({"input": "say hi"})

    assert "“say hi”" in items[0]["content"][0]["text"]


def test_a_message_comes_as_the_whole_chain_of_events():
    _, _, events = answer({"input": "say hi"}, deltas=2)

    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(10))


@given(st.integers(min_value=0, max_value=200))
def test_there_are_as_many_deltas_as_asked_for_and_they_make_up_the_text(deltas):
    _, items, events = answer({"input": "say hi"}, deltas=deltas)
    pieces = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]

    assert len(pieces) == deltas
    assert "".join(pieces) == items[0]["content"][0]["text"]


def test_the_completed_response_carries_output_and_usage():
    _, items, events = answer({"input": "say hi"})
    response = events[-1]["response"]

    assert response["status"] == "completed"
    assert response["output"][0]["content"] == items[0]["content"]
    assert response["usage"]["total_tokens"] == response["usage"]["input_tokens"] + response["usage"]["output_tokens"]
    assert "_pieces" not in str(events)


def test_a_warm_up_is_completed_without_items():
    _, items, events = answer({"input": [], "generate": False})

    assert items == []
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.completed"]


def test_a_command_becomes_a_function_call():
    _, items, events = answer({"input": [user("please run: echo 'a b'")], "tools": EXEC_COMMAND})

    assert (items[0]["type"], items[0]["name"]) == ("function_call", "exec_command")
    assert items[0]["arguments"] == '{"cmd": "echo \'a b\'"}'
    assert [event["type"] for event in events if "arguments" in event["type"]] == [
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
    ]


def test_in_code_mode_a_command_becomes_a_script():
    _, items, _ = answer({"input": [CODE_MODE, user("run: ls")]})

    assert (items[0]["type"], items[0]["name"]) == ("custom_tool_call", "exec")
    assert '{"cmd": "ls"}' in items[0]["input"]


def test_a_command_without_a_tool_to_run_it_is_just_text():
    _, items, _ = answer({"input": [user("run: ls")]})

    assert items[0]["type"] == "message"


@pytest.mark.parametrize("output", ["Process exited\nOutput:\nhello\n", [{"type": "input_text", "text": "hello"}]])
def test_the_output_of_a_command_comes_back_in_a_message(output):
    call_output = {"type": "function_call_output", "call_id": "call_1", "output": output}
    _, items, _ = answer({"input": [user("run: echo hello"), call_output], "tools": EXEC_COMMAND})

    assert items[0]["content"][0]["text"] == "The command answered: hello"


def test_the_next_command_runs_although_an_earlier_one_did():
    call_output = {"type": "function_call_output", "call_id": "call_1", "output": "hello"}
    _, items, _ = answer({"input": [user("run: one"), call_output, user("run: two")], "tools": EXEC_COMMAND})

    assert items[0]["arguments"] == '{"cmd": "two"}'


def test_a_command_does_not_run_again_because_its_output_was_compacted_away():
    compaction = {"type": "compaction", "encrypted_content": "sim1"}
    _, items, _ = answer({"input": [user("run: one"), compaction], "tools": EXEC_COMMAND})

    assert items[0]["type"] == "message"


def test_a_compaction_is_exactly_one_item_and_four_events():
    _, items, events = answer({"input": [user("a long talk"), {"type": "compaction_trigger"}]})

    assert [item["type"] for item in items] == ["compaction"]
    assert [event["type"] for event in events] == [
        "response.created",
        "response.output_item.added",
        "response.output_item.done",
        "response.completed",
    ]


@given(st.lists(st.one_of(st.none(), st.integers(), st.text(), st.dictionaries(st.text(), st.integers())), max_size=5))
def test_items_that_nobody_knows_do_no_harm(items):
    _, answered, _ = answer({"input": items, "tools": items})

    assert len(answered) == 1
