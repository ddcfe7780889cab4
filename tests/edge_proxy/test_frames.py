"""Frames of sockets, read and written."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_proxy.errors import BodyMalformed
from edge_proxy.frames import ClientFrame, addressed, backend_frame, http_body, mended_error, needs_mending, presentable


def frame(**keys: object) -> ClientFrame:
    return ClientFrame.of(json.dumps({"type": "response.create", **keys}))


@pytest.mark.parametrize("text", [None, "", "{", "[]", "1", "{}", '{"type":1}', '{"type":"x","stream_id":1}'])
def test_what_is_no_frame_is_refused(text: str | None):
    with pytest.raises(BodyMalformed):
        ClientFrame.of(text)


@given(st.text())
def test_no_text_is_too_strange_to_be_refused(text: str):
    with contextlib.suppress(BodyMalformed):
        ClientFrame.of(text)


def test_a_turns_own_metadata_says_whose_it_is():
    handshake = {"thread-id": "old", "session-id": "s"}
    metadata = {"thread_id": "new", "x-codex-turn-state": "ts", "other": 1}

    addresses = frame(client_metadata=metadata).addresses(handshake)

    assert addresses == {"thread-id": "new", "session-id": "s", "x-codex-turn-state": "ts"}
    assert frame().addresses(handshake) == handshake


def test_a_v1_frame_becomes_what_the_backend_accepts_on_a_socket():
    sent = json.loads(
        backend_frame(frame(model="m", input="hi", stream_id="a", temperature=1, generate=False).document)
    )

    assert sent["type"] == "response.create"
    assert sent["generate"] is False
    assert sent["store"] is False
    assert not {"stream", "stream_id", "temperature"} & sent.keys()


def test_a_turn_over_http_is_an_ordinary_body():
    document = frame(model="m", input=[], stream_id="a", extra=1).document

    assert json.loads(http_body(document, normalised=False)) == {"model": "m", "input": [], "extra": 1, "stream": True}
    assert json.loads(http_body(document, normalised=True))["store"] is False


@given(st.dictionaries(st.text(), st.integers(), min_size=1), st.text(min_size=1, max_size=5))
def test_an_event_is_addressed_to_its_line(document: dict[str, int], stream_id: str):
    document.pop("stream_id", None)
    if document:
        event = json.loads(addressed(json.dumps(document).encode(), stream_id))

        assert event == {**document, "stream_id": stream_id}


def test_an_event_that_is_addressed_already_or_has_no_line_stays():
    assert addressed(b'{"stream_id":"a"}', "b") == '{"stream_id":"a"}'
    assert addressed(b'{"x":1}', "") == '{"x":1}'


@pytest.mark.parametrize(
    ("document", "mending"),
    [
        ({"type": "error"}, True),
        ({"type": "error", "status": 429}, True),
        ({"type": "error", "status": 401}, True),
        ({"type": "error", "status": 503, "headers": {"retry-after": "1"}}, False),
        ({"type": "error", "status": 503, "headers": {"retry-after": 120}}, False),
        ({"type": "error", "status": 429, "headers": {"retry-after": "0.5"}}, True),
        ({"type": "error", "status": 429, "headers": {"retry-after": "0"}}, True),
        ({"type": "error", "status": 429, "headers": {"retry-after": "121"}}, True),
        ({"type": "error", "status": 429, "headers": {"retry-after": True}}, True),
        ({"type": "error", "status": 429, "headers": {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}}, True),
        ({"type": "error", "status": 429, "headers": {"Retry-After": "5"}}, True),
        ({"type": "error", "status": 429, "headers": ["retry-after"]}, True),
        ({"type": "error", "status": True}, True),
        ({"type": "error", "status": 200}, True),
        ({"type": "error", "status": 999}, True),
        ({"type": "error", "status": 400}, False),
    ],
)
def test_only_what_would_leave_a_client_waiting_is_mended(document: dict[str, Any], mending: bool):
    assert needs_mending(document) == mending


def test_a_mended_error_keeps_what_it_said():
    error = {"code": "rate_limit_exceeded", "message": "try again in 4s"}

    mended = json.loads(mended_error({"type": "error", "error": error, "event_id": "e"}))

    assert (mended["status"], mended["headers"]["retry-after"], mended["event_id"]) == (429, "4", "e")
    assert mended["error"]["code"] == "rate_limit_exceeded"


def test_a_mended_error_says_the_wait_in_whole_seconds_and_keeps_its_other_headers():
    headers = {"Retry-After": "2.5", "X-Codex-Plan-Type": "plus"}

    mended = json.loads(mended_error({"type": "error", "status": 429, "headers": headers, "error": {}}))

    assert mended["headers"] == {"retry-after": "3", "x-codex-plan-type": "plus"}
    assert not needs_mending(mended)


@given(st.one_of(st.none(), st.booleans(), st.integers(400, 599), st.text()), st.dictionaries(st.text(), st.text()))
def test_every_error_frame_can_be_read_once_it_is_mended(status: object, headers: dict[str, str]):
    frame = {"type": "error", "status": status, "headers": headers, "error": {"code": "x"}}

    shown = json.loads(presentable(json.dumps(frame).encode()))

    assert not needs_mending(shown)


def test_what_is_no_error_or_needs_no_mending_passes_as_it_came():
    for text in (b'{"type": "codex.rate_limits"}', b'{"type": "error", "status": 400}', b"no JSON"):
        assert presentable(text) == text


def test_an_opinion_of_the_accounts_credential_is_told_as_ours():
    mended = json.loads(mended_error({"type": "error", "status": 401, "error": {"code": "token_invalidated"}}))

    assert (mended["status"], mended["error"]["code"]) == (503, "upstream_auth_unavailable")
