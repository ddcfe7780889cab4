"""Objects of clients, read at their top level."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_proxy.document import all_keys, asks_for_compaction, has_additional_tools, known_keys, written
from edge_proxy.errors import BodyMalformed
from edge_proxy.turn import TurnRequest

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


def test_a_body_of_many_million_items_is_read_without_building_them():
    body = b'{"model":"m","stream":true,"input":[' + b"{}," * 20_000_000 + b"{}]}"

    tracemalloc.start()
    try:
        turn = TurnRequest.of(known_keys(body))
        document = all_keys(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert turn == TurnRequest(model="m", stream=True)
    assert document.keys() == {"model", "stream", "input"}
    assert peak < 1_000_000


def test_a_body_of_very_many_keys_is_not_taken_to_pieces():
    body = b'{"model":"m",' + b",".join(b'"%d":0' % number for number in range(200_000)) + b"}"

    assert known_keys(body).keys() == {"model"}
    with pytest.raises(BodyMalformed, match="too much in other keys"):
        all_keys(body)


@pytest.mark.parametrize("read", [known_keys, all_keys])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "not valid JSON"),
        (b'{"x":[1,}', "not valid JSON"),
        (b'{"x":NaN}', "not valid JSON"),
        (b'{"x":"\\ud800"}', "not valid JSON"),
        (b'{"x":["\xff"]}', "not UTF-8"),
        (b'{"x":["\xed\xa0\x80"]}', "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(read, text: bytes, told: str):
    with pytest.raises(BodyMalformed, match=told):
        read(text)


def test_of_a_key_that_comes_twice_the_last_counts():
    text = b'{"model":"a","model":"b"}'

    assert TurnRequest.of(known_keys(text)).model == "b"
    assert written(all_keys(text)) == b'{"model":"b"}'


@given(st.dictionaries(st.text(), JSON))
def test_what_is_read_is_written_as_it_came(document):
    assert json.loads(written(all_keys(json.dumps(document, ensure_ascii=False)))) == document


@pytest.mark.parametrize(
    ("items", "asked"),
    [
        ([{"type": "compaction_trigger"}], True),
        (["x" * 9000, {"nested": {"type": "y"}, "type": "compaction_trigger", "more": [{}]}], True),
        ([{"type": "compaction_trigger"}, {"type": "message"}], False),
        ([{"content": {"type": "compaction_trigger"}}], False),
        ([{"text": '{"type":"compaction_trigger"}'}], False),
        (["compaction_trigger"], False),
        ({"type": "compaction_trigger"}, False),
    ],
)
def test_only_a_last_item_asks_for_compaction(items, asked: bool):
    value = all_keys(json.dumps({"input": items}))["input"]

    assert asks_for_compaction(value) == asked


def test_additional_tools_are_an_item_and_no_text():
    said = all_keys(json.dumps({"a": [{"x": '"type":"additional_tools"'}], "b": [{"type": "additional_tools"}]}))

    assert [has_additional_tools(said[name]) for name in "ab"] == [False, True]
