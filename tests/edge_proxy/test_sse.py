"""The event parser: however the bytes are cut, the same events come out."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_proxy.sse import EventTooLarge, SseEvent, SseParser, type_of
from tests.edge_proxy.scripted_upstream import event as written_event

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=12).map(str.encode)
FIELDS = st.one_of(
    TEXT.map(lambda text: b"data: " + text),
    TEXT.map(lambda text: b"data:" + text),
    TEXT.map(lambda text: b": " + text),
    st.sampled_from([b"event: response.created", b"event:x", b"id: 1", b"retry: 5", b"nonsense"]),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    end = draw(LINE_ENDS)
    blocks = draw(st.lists(st.lists(FIELDS, max_size=4), max_size=6))
    mixed = draw(st.booleans())
    stream = b""
    for block in blocks:
        for line in [*block, b""]:
            stream += line + (draw(LINE_ENDS) if mixed else end)
    return stream


def parse(stream: bytes, cuts: list[int] | None = None) -> list[SseEvent]:
    parser = SseParser()
    events = []
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts or []), len(stream)]
    for start, end in itertools.pairwise(edges):
        events += parser.feed(stream[start:end])
    return events


@given(streams(), st.lists(st.integers(min_value=0), max_size=8))
def test_cuts_change_nothing(stream: bytes, cuts: list[int]):
    assert parse(stream, cuts) == parse(stream)


@given(streams())
def test_byte_by_byte_changes_nothing(stream: bytes):
    assert parse(stream, list(range(len(stream)))) == parse(stream)


@given(st.lists(st.tuples(st.sampled_from(["a", "b.c"]), st.integers(-99, 99)), max_size=5), LINE_ENDS)
def test_written_events_are_read_back(written: list[tuple[str, int]], end: bytes):
    stream = b"".join(written_event({"type": name, "n": n}).replace(b"\n", end) for name, n in written)

    assert [(event.name, event.document()["n"]) for event in parse(stream)] == written


def test_the_name_comes_from_the_data_where_no_line_says_it():
    (event,) = parse(b'data: {"type":"response.created","x":1}\n\n')

    assert event.name == "response.created"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"type":"a.b"}', "a.b"),
        (b'{ "type" : "a" }', "a"),
        (b'{"response":{"type":"no"},"type":"yes"}', "yes"),
        (b'{"x":1}', ""),
        (b"[DONE]", ""),
        (b'{"type":1}', ""),
    ],
)
def test_the_type_is_the_outer_one(data: bytes, kind: str):
    assert type_of(data) == kind


def test_several_data_lines_are_one_text():
    (event,) = parse(b"data: {\ndata: }\n\n")

    assert event.data == b"{\n}"


def test_an_unfinished_event_is_no_boundary():
    parser = SseParser()
    boundaries = [parser.at_boundary]
    for chunk in (b"data: x\n", b"\n", b"\r\n"):
        parser.feed(chunk)
        boundaries.append(parser.at_boundary)

    assert boundaries == [True, False, True, True]


def test_an_event_without_an_end_is_too_large():
    parser = SseParser(limit=10)

    with pytest.raises(EventTooLarge):
        parser.feed(b"data: 12345")
