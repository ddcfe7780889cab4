"""The catalogue's two shapes."""

import orjson
import pytest

from edge_proxy.catalogue import models_answer

CODEX = orjson.dumps({"models": [{"slug": "a", "display_name": "A", "priority": 1, "new": [1]}, {"no": "slug"}, 5]})
OPENAI = orjson.dumps({"object": "list", "data": [{"id": "b", "object": "model", "created": 7}]})


def test_codex_entries_pass_whole_and_are_listed_as_models_too():
    answer = orjson.loads(models_answer(CODEX, for_codex=True))

    assert answer["models"][0] == {"slug": "a", "display_name": "A", "priority": 1, "new": [1]}
    assert answer["data"] == [
        {"id": "a", "object": "model", "created": 0, "owned_by": "openai", "metadata": {"display_name": "A"}}
    ]


def test_openai_items_pass_whole():
    answer = orjson.loads(models_answer(OPENAI, for_codex=False))

    assert answer == {"object": "list", "data": [{"id": "b", "object": "model", "created": 7}]}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"models":5}'])
def test_an_odd_catalogue_is_an_empty_one(body: bytes):
    assert orjson.loads(models_answer(body, for_codex=True)) == {"models": [], "object": "list", "data": []}
