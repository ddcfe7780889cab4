"""How errors look to clients: the tables are whole, and refusals keep clients alive."""

import math

import orjson
import pytest

from admission_client import errors as admission_errors
from admission_client.errors import AcquireRejected, AdmissionUnavailable, Denied
from admission_client.lease import Denial, DenialReason
from edge_proxy import errors
from edge_proxy.errors import Refusal, UpstreamAnswered, UpstreamFailed, UpstreamTrouble, refusal_of

KNOWN_REASONS = [reason for reason in DenialReason if reason is not DenialReason.UNKNOWN]


@pytest.mark.parametrize("reason", KNOWN_REASONS)
def test_every_denial_has_a_look_of_its_own(reason: DenialReason):
    refusal = refusal_of(Denied(Denial(reason=reason)), lane="lanes/proxy_http")

    assert refusal.reason == reason.value
    assert refusal.lane == "proxy_http"
    assert (refusal.retry_after is not None) == (refusal.status in {429, 503} and not refusal.hopeless)


def test_every_error_has_a_look():
    told = set(errors._ERRORS)
    ours = {error for error in errors.EdgeError.__subclasses__() if error.__module__ == errors.__name__}

    assert ours - told == {errors.ClientGone, UpstreamFailed, UpstreamAnswered}
    assert {admission_errors.AdmissionUnavailable, admission_errors.SessionSuperseded} <= told
    assert set(errors._TROUBLES) == set(UpstreamTrouble)


@pytest.mark.parametrize("wanted", [0.0, 0.2, 1.0, 3.2, 500.0, None])
def test_retry_after_is_whole_and_from_1_to_120(wanted: float | None):
    refusal = refusal_of(Denied(Denial(reason=DenialReason.LANE_FULL, retry_after=wanted)))

    assert isinstance(refusal.retry_after, int)
    assert 1 <= refusal.retry_after <= 120
    assert wanted is None or wanted > 120 or refusal.retry_after >= math.floor(wanted)


@pytest.mark.parametrize("code", ["usage_limit_reached", "insufficient_quota"])
def test_what_waiting_does_not_mend_says_so(code: str):
    refusal = refusal_of(UpstreamAnswered(429, b"", code=code, retry_after=5.0))

    assert refusal.retry_after is None
    assert (b"x-should-retry", b"false") in refusal.headers()


def test_an_upstreams_body_goes_on_as_it_is():
    body = b'{"error":{"message":"theirs","code":"c"},"more":1}'

    refusal = refusal_of(UpstreamAnswered(400, body, code="c"))

    assert refusal.envelope() == body
    assert refusal.frame()["error"] == {"message": "theirs", "code": "c"}


@pytest.mark.parametrize("error", [ValueError("secret"), AcquireRejected("secret", code=3)])
def test_what_is_unexpected_is_told_without_details(error: Exception):
    refusal = refusal_of(error)

    assert (refusal.status, refusal.code) == (500, "internal_error")
    assert b"secret" not in refusal.envelope()


def test_a_reason_that_is_newer_than_this_edge_is_taken_for_overload():
    lane = refusal_of(Denied(Denial(reason=DenialReason.UNKNOWN, resource="lanes/x")))
    work = refusal_of(Denied(Denial(reason=DenialReason.UNKNOWN, resource="stages/x")))

    assert (lane.status, lane.code) == (429, "proxy_overloaded")
    assert (work.status, work.code) == (429, "global_admission_timeout")


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        ("codex_cli_rs/0.98.0 (x)", 503),
        ("codex_exec/0.161.9", 503),
        ("codex_exec/0.162.0", 429),
        ("Codex Desktop/0.100.1", 503),
        ("codex_exec/1.0.0", 429),
        ("OpenAI/Python 3.54.0", 429),
        ("codex/" + "1" * 5000, 429),
        ("codex/" + "1" * 5000 + ".1", 429),
        ("codex/0." + "1" * 5000, 429),
        ("", 429),
    ],
)
def test_overload_is_503_for_those_who_give_up_on_429(agent: str, status: int):
    assert refusal_of(Denied(Denial(reason=DenialReason.LANE_FULL)), user_agent=agent).status == status


def test_an_unknown_key_is_told_in_the_clients_words():
    refusal = refusal_of(Denied(Denial(reason=DenialReason.KEY_UNKNOWN, message="No API key has this hash.")))

    assert refusal.message == "This API key is not known here."


def test_an_old_codex_still_gets_its_quota_answer_as_429():
    quota = Denied(Denial(reason=DenialReason.QUOTA_EXHAUSTED, retry_after=9.0))

    assert refusal_of(quota, user_agent="codex_exec/0.98.0").status == 429


def test_an_error_frame_always_has_a_status_and_a_retry_after_beside_it():
    frame = refusal_of(AdmissionUnavailable("away", retry_after=1.5)).frame()

    assert frame["type"] == "error"
    assert frame["status"] == 503
    assert frame["headers"] == {"retry-after": "2"}
    assert frame["error"]["code"] == "admission_unavailable"


def test_the_envelope_is_openais():
    refusal = Refusal(status=400, code="c", kind="invalid_request_error", message="m", param="p")

    assert orjson.loads(refusal.envelope()) == {
        "error": {"message": "m", "type": "invalid_request_error", "code": "c", "param": "p"}
    }
