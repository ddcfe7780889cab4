"""What upstream answers mean."""

import time
from typing import Any

import orjson
import pytest

from admission_client.lease import Credits, Outcome, RateLimitWindow, TokenUsage
from edge_proxy.outcome import (
    Action,
    credits_in_event,
    credits_in_headers,
    judge,
    judge_answer,
    judge_event,
    status_of,
    usage_in,
    windows_in_event,
    windows_in_headers,
)


@pytest.mark.parametrize(
    ("status", "code", "outcome", "action"),
    [
        (429, "", Outcome.RATE_LIMITED, Action.FAIL_OVER),
        (429, "rate_limit_exceeded", Outcome.RATE_LIMITED, Action.FAIL_OVER),
        (0, "usage_limit_reached", Outcome.RATE_LIMITED, Action.FAIL_OVER),
        (403, "usage_not_included", Outcome.QUOTA_EXCEEDED, Action.FAIL_OVER),
        (401, "", Outcome.AUTH_REJECTED, Action.REAUTHENTICATE),
        (403, "", Outcome.AUTH_REJECTED, Action.REAUTHENTICATE),
        (400, "token_expired", Outcome.AUTH_REJECTED, Action.REAUTHENTICATE),
        (401, "account_deactivated", Outcome.ACCOUNT_DISABLED, Action.FAIL_OVER),
        (402, "", Outcome.QUOTA_EXCEEDED, Action.FAIL_OVER),
        (404, "", Outcome.MISCONFIGURED, Action.FAIL_OVER),
        (404, "model_not_found", Outcome.NEUTRAL, Action.SURFACE),
        (408, "", Outcome.TRANSIENT_ERROR, Action.FAIL_OVER),
        (500, "x", Outcome.TRANSIENT_ERROR, Action.FAIL_OVER),
        (0, "server_is_overloaded", Outcome.TRANSIENT_ERROR, Action.FAIL_OVER),
        (400, "previous_response_not_found", Outcome.NEUTRAL, Action.SURFACE),
        (400, "invalid_request_error", Outcome.NEUTRAL, Action.SURFACE),
        (0, "content_filter", Outcome.NEUTRAL, Action.SURFACE),
    ],
)
def test_a_code_says_more_than_a_status(status: int, code: str, outcome: Outcome, action: Action):
    verdict = judge(status, code)

    assert (verdict.outcome, verdict.action) == (outcome, action)


@pytest.mark.parametrize(("status", "disabled"), [(401, True), (403, True), (400, False), (500, False)])
def test_a_message_disables_an_account_only_with_401_or_403(status: int, disabled: bool):
    verdict = judge(status, "", "Your OpenAI account has been deactivated.")

    assert (verdict.outcome is Outcome.ACCOUNT_DISABLED) == disabled


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"code":"usage_limit_reached"}}',
        b'{"error":{"type":"usage_limit_reached"}}',
        b'{"code":"usage_limit_reached"}',
        b'{"error":"usage_limit_reached"}',
    ],
)
def test_a_code_is_found_wherever_upstreams_put_it(body: bytes):
    assert judge_answer(429, {}, body).code == "usage_limit_reached"


def test_a_class_of_errors_is_no_code():
    assert judge_answer(429, {}, b'{"error":{"type":"rate_limit_error","message":"x"}}').code == ""


@pytest.mark.parametrize(
    ("headers", "error", "seconds"),
    [
        ({"retry-after": "7"}, {}, 7.0),
        ({"retry-after": "0.5"}, {}, 0.5),
        ({}, {"resets_in_seconds": 90}, 90.0),
        ({}, {"message": "Please try again in 1.5s."}, 1.5),
        ({}, {"message": "try again in 250ms"}, 0.25),
        ({}, {"message": "try again in 2m"}, 120.0),
        ({}, {"resets_at": 5}, None),
        ({}, {"resets_in_seconds": 1e12}, None),
        ({"retry-after": "soon"}, {}, None),
        ({}, {}, None),
    ],
)
def test_when_to_come_back_is_read_where_it_is_plausible(
    headers: dict[str, str], error: dict[str, Any], seconds: float | None
):
    verdict = judge_answer(429, headers, orjson.dumps({"error": error}))

    assert verdict.resets_after == (None if seconds is None else pytest.approx(seconds, abs=2))


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({"type": "error", "status": 503, "error": {"code": "x"}}, 503),
        ({"type": "error", "error": {"code": "rate_limit_exceeded"}}, 429),
        ({"type": "error", "code": "usage_limit_reached", "message": "m"}, 429),
        ({"type": "response.failed", "response": {"error": {"code": "server_is_overloaded"}}}, 503),
        ({"type": "response.failed", "response": {"error": {"code": "context_length_exceeded"}}}, 400),
        ({"type": "response.failed", "response": {"error": {"code": "server_error"}}}, 502),
        ({"type": "error"}, 502),
    ],
)
def test_a_failure_that_came_as_an_event_has_a_status(event: dict[str, Any], status: int):
    assert status_of(judge_event(event)) == status


def test_a_wall_clock_time_becomes_the_time_left():
    body = orjson.dumps({"error": {"resets_at": time.time() + 100}})

    assert judge_answer(429, {}, body).resets_after == pytest.approx(100, abs=30)


def test_windows_are_read_from_headers_by_their_length():
    headers = {
        "x-codex-primary-used-percent": "12.5",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": str(int(time.time()) + 60),
        "x-codex-secondary-used-percent": "oops",
        "x-codex-secondary-window-minutes": "10080",
    }

    (window,) = windows_in_headers(headers)

    assert (window.length, window.used_percent) == (18_000, 12.5)
    assert window.resets_after == pytest.approx(60, abs=30)


def test_windows_and_credits_are_read_from_the_event():
    event = {
        "rate_limits": {"primary": {"used_percent": 5, "window_minutes": 300}, "secondary": None},
        "credits": {"has_credits": True, "unlimited": False, "balance": 3},
    }

    assert windows_in_event(event) == (RateLimitWindow(length=18_000, used_percent=5.0),)
    assert credits_in_event(event) == Credits(has_credits=True, balance="3")


def test_limits_of_something_else_than_codex_are_ignored():
    event = {"limit_name": "other", "rate_limits": {"primary": {"used_percent": 5, "window_minutes": 300}}}

    assert windows_in_event(event) == ()


def test_credits_are_read_from_headers():
    headers = {"x-codex-credits-has-credits": "True", "x-codex-credits-balance": "7"}

    assert credits_in_headers(headers) == Credits(has_credits=True, balance="7")
    assert credits_in_headers({}) is None


def test_usage_is_read_in_both_shapes():
    responses = {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 3}
    chat = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens": 3}

    assert usage_in(responses) == usage_in(chat)
    assert usage_in(responses) == TokenUsage(input_tokens=5, cached_input_tokens=2, output_tokens=3)
    assert usage_in(None) is None
    assert usage_in({"input_tokens": "many", "output_tokens_details": 1}) == TokenUsage()
