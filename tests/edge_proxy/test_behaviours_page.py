"""docs/behaviours/edge.md names tests that exist."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parents[1] / "docs" / "behaviours" / "edge.md"
_FILE_OR_SENTENCE = re.compile(r"`(test_\w+)`|(?<!\*)\*([a-z0-9][^*]+)\*")


def named_tests() -> list[tuple[str, str]]:
    named = []
    file = ""
    for found in _FILE_OR_SENTENCE.finditer(PAGE.read_text(encoding="utf-8")):
        if found[1]:
            file = found[1]
        else:
            named.append((file, f"test_{found[2].replace(' ', '_')}"))
    return named


@pytest.mark.parametrize("file", sorted({file for file, _ in named_tests()}))
def test_every_sentence_on_the_page_is_a_test(file: str):
    source = (TESTS / f"{file}.py").read_text(encoding="utf-8")
    missing = [test for named, test in named_tests() if named == file and f"def {test}(" not in source]

    assert not missing
