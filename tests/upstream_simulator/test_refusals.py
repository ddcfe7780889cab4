import pytest

from upstream_simulator.faults import parse_faults
from upstream_simulator.refusals import detail, refusal_on_request


def refusal(text):
    return refusal_on_request(parse_faults(text), plan="pro", now=1000.4, window_resets_in=600)


def test_nothing_asked_is_nothing_refused():
    assert refusal("slow=1,cut=2") is None


def test_a_used_up_account_says_when_it_resets_and_has_a_type_but_no_code():
    refused = refusal("code=usage_limit_reached")

    assert refused.status == 429
    assert refused.body["error"] == {
        "type": "usage_limit_reached",
        "message": "The usage limit has been reached",
        "plan_type": "pro",
        "resets_at": 1600,
        "resets_in_seconds": 600,
    }


def test_a_burst_limit_has_only_a_message():
    refused = refusal("no-code,retry-after=2")

    assert refused.status == 429
    assert list(refused.body["error"]) == ["message"]
    assert refused.headers == {"retry-after": "2"}


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("code=server_is_overloaded", 503, "server_is_overloaded"),
        ("code=server_is_overloaded,status=500", 500, "server_is_overloaded"),
        ("status=401", 401, "token_invalidated"),
        ("status=502", 502, None),
        ("code=something_new", 500, "something_new"),
    ],
)
def test_status_and_code_complete_each_other(text, status, code):
    refused = refusal(text)

    assert (refused.status, refused.body["error"]["code"]) == (status, code)


def test_on_a_socket_a_refusal_is_an_error_frame_with_its_status_and_headers():
    frame = refusal("status=429,retry-after=3").as_frame()

    assert (frame["type"], frame["status"], frame["headers"]) == ("error", 429, {"retry-after": "3"})
    assert frame["error"]["code"] == "rate_limit_exceeded"
    assert detail(400, "No.").as_frame()["error"]["message"] == "No."
