import pytest

from upstream_simulator.strictness import (
    INCLUDABLE,
    UNSUPPORTED_PARAMETERS,
    malformed,
    refusal_of_compact_endpoint,
    refusal_of_handshake,
    refusal_of_http_turn,
    refusal_of_socket_turn,
)


def refused(refusal):
    """Returns status and body, after checking that there is a refusal."""
    assert refusal is not None
    return refusal.status, refusal.body


BODY = {"model": "gpt-5.5", "input": [], "store": False, "stream": True}


def test_what_codex_sends_is_taken():
    body = {**BODY, "include": sorted(INCLUDABLE), "tools": [{"type": "unheard-of"}], "client_metadata": {"a": "b"}}

    assert refusal_of_http_turn(body) is None
    assert refusal_of_socket_turn({k: v for k, v in body.items() if k != "stream"}) is None


@pytest.mark.parametrize("name", UNSUPPORTED_PARAMETERS)
def test_an_unsupported_parameter_is_named(name):
    answer = refused(refusal_of_http_turn({**BODY, name: None}))

    assert answer == (400, {"detail": f"Unsupported parameter: {name}"})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"store": True}, "Store must be set to false"),
        ({"store": None}, "Store must be set to false"),
        ({"stream": False}, "Stream must be set to true"),
        ({"input": "hi"}, "Input must be a list"),
    ],
)
def test_a_turn_is_a_stream_of_items_that_nobody_stores(change, sentence):
    answer = refused(refusal_of_http_turn({**BODY, **change}))

    assert answer == (400, {"detail": sentence})


def test_an_unknown_include_is_refused():
    _, body = refused(refusal_of_http_turn({**BODY, "include": ["reasoning.encrypted_content", "secrets"]}))

    assert "secrets" in body["error"]["message"]


@pytest.mark.parametrize("body", [None, [], {}, {"model": ""}, {"model": 5}])
def test_nobody_answers_a_body_without_a_model(body):
    status, _ = refused(malformed(body))

    assert status == 400


def test_a_turn_continues_a_response_or_a_conversation_but_not_both():
    status, _ = refused(malformed({"model": "m", "previous_response_id": "resp_1", "conversation": "conv_1"}))

    assert status == 400


def test_the_compact_endpoint_knows_neither_store_nor_stream():
    assert refusal_of_compact_endpoint({"model": "m", "input": []}) is None


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        (["responses_websockets=2026-02-06"], True),
        (["other=1, responses_websockets=2026-02-06"], True),
        ([], False),
        (["responses_websockets=2026-02-06", "responses=experimental"], False),
    ],
)
def test_a_handshake_names_the_version_of_the_protocol(headers, taken):
    assert (refusal_of_handshake(headers) is None) is taken
