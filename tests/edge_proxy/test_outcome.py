"""What upstream answers mean, and that whatever an upstream says can be told to the admission server."""

import json
import math
import time
from typing import Any

import orjson
import pytest
from admission.v1 import admission_service_pb2 as session_pb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admission_client import wire
from admission_client.bounds import LONGEST_TIME
from admission_client.lease import (
    AccountKind,
    AccountReport,
    Credits,
    GrantedAccount,
    Outcome,
    RateLimitWindow,
    TokenUsage,
)
from admission_client.memory import MemoryAdmission
from edge_proxy.auth import Client
from edge_proxy.document import known_keys
from edge_proxy.errors import BodyMalformed
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
from edge_proxy.reports import AccountReporter
from edge_proxy.turn import TurnRequest, TurnWatch


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
        ({}, {"resets_at": 1e308}, None),
        ({}, {"message": "try again in 99999999999999999999s"}, None),
        ({}, {"message": f"try again in {'9' * 400}s"}, None),
        ({"retry-after": "9" * 400}, {}, None),
        ({"retry-after": "nan"}, {}, None),
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


@pytest.mark.parametrize("status", [2**32, -1, 99, 600, True, 503.0, "503", None, [503]])
def test_a_status_of_an_event_that_is_none_is_ignored(status: Any):
    verdict = judge_event({"type": "error", "status": status, "error": {"code": "server_error"}})

    assert (verdict.status, verdict.outcome) == (0, Outcome.TRANSIENT_ERROR)


def test_codes_and_balances_can_be_encoded_and_are_bounded():
    headers = {"x-codex-credits-has-credits": "true", "x-codex-credits-balance": "\udcff" + "9" * 500}
    event = {"credits": {"has_credits": True, "balance": "9" * 500}}
    told = [credits_in_headers(headers), credits_in_event(event)]

    assert [len(credit.balance.encode()) for credit in told if credit] == [64, 64]
    assert judge(400, "\ud800" + "é" * 500).code == "?" + "é" * 63


@pytest.mark.parametrize("balance", [None, [[]], {}, 10**400, math.inf])
def test_a_balance_that_is_neither_text_nor_a_number_is_none(balance: Any):
    assert credits_in_event({"credits": {"has_credits": True, "balance": balance}}) == Credits(has_credits=True)


@pytest.mark.parametrize("count", [2**64 - 1, 10**30, -1, 1.5, "7"])
def test_a_count_of_tokens_that_cannot_be_is_none(count: Any):
    assert usage_in({"input_tokens": count, "output_tokens": 3}) == TokenUsage(output_tokens=3)


# Whatever an upstream or a client says, the admission server can be told what came of it.

TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=150) | st.sampled_from(
    ["codex", "rate_limit_exceeded", "9" * 400, "1e999", "nan", "try again in 9999999999999999999m", "\udcff"]
)
NUMBER = (
    st.integers()
    | st.floats()
    | st.sampled_from([2**32, 2**63, 2**64 - 1, 10**30, 10**400, -1, 429, math.inf, math.nan, 1e308])
)
NAMES = st.sampled_from(
    [
        "type",
        "code",
        "message",
        "status",
        "status_code",
        "error",
        "response",
        "headers",
        "retry-after",
        "resets_in_seconds",
        "resets_at",
        "reset_at",
        "usage",
        "input_tokens",
        "output_tokens",
        "input_tokens_details",
        "cached_tokens",
        "prompt_tokens",
        "id",
        "rate_limits",
        "primary",
        "secondary",
        "used_percent",
        "window_minutes",
        "credits",
        "has_credits",
        "balance",
        "limit_id",
        "limit_name",
        "model",
        "previous_response_id",
        "detail",
        "prompt_cache_key",
        "input",
        "x",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=16,
)
DOCUMENT = st.dictionaries(NAMES, JSON, max_size=6)
WINDOWS = st.fixed_dictionaries(
    {"used_percent": NUMBER | TEXT, "window_minutes": NUMBER | TEXT, "reset_at": NUMBER | TEXT}
)
EVENT = DOCUMENT | st.fixed_dictionaries(
    {
        "status": NUMBER,
        "response": st.fixed_dictionaries({"id": TEXT, "usage": DOCUMENT, "error": DOCUMENT}),
        "rate_limits": st.fixed_dictionaries({"primary": WINDOWS, "secondary": WINDOWS}),
        "credits": st.fixed_dictionaries({"has_credits": st.booleans(), "balance": JSON}),
        "headers": JSON | st.fixed_dictionaries({"retry-after": JSON}),
    }
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            f"x-codex-{p}-{what}"
            for p in ("primary", "secondary")
            for what in ("used-percent", "window-minutes", "reset-at")
        ]
        + [f"x-codex-credits-{what}" for what in ("has-credits", "unlimited", "balance")]
        + ["retry-after", "x-codex-turn-state", "thread-id", "session-id"]
    ),
    TEXT | NUMBER.filter(lambda number: abs(number) != 10**400).map(str),
)
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
EVENT_NAMES = ["response.created", "codex.rate_limits", "response.completed", "response.failed", "error"]


def told_of(verdict: Any, watch: TurnWatch, headers: dict[str, str]) -> AccountReport:
    admission = MemoryAdmission()
    account = GrantedAccount(account_id="acc_1", kind=AccountKind.CHATGPT, base_url="http://127.0.0.1")
    reporter = AccountReporter(admission, account, Client(peer="127.0.0.1"), watch)
    reporter.headers = headers
    reporter.settle(verdict)
    return admission.reports[-1]


def assert_can_be_told(report: AccountReport) -> None:
    said = wire.account_report(report)

    assert len(said.SerializeToString()) < 2000
    # Already the edge keeps to what is plausible: nothing has to be cut on the way out.
    assert (said.status, said.code, list(said.owned_keys)) == (report.status, report.code, list(report.owned_keys))
    assert report.resets_after is None or 0 < report.resets_after <= LONGEST_TIME
    assert report.usage is None or wire.token_usage(said.usage) == report.usage
    assert report.credits is None or wire.account_credits(said.credits) == report.credits
    assert all(math.isfinite(w.used_percent) and 0 < w.length <= LONGEST_TIME for w in report.windows)


@PATIENT
@given(st.lists(st.tuples(st.sampled_from(EVENT_NAMES), EVENT), max_size=3), EVENT, HEADERS)
def test_whatever_events_and_headers_say_can_be_reported(
    events: list[tuple[str, dict[str, Any]]], failure: dict[str, Any], headers: dict[str, str]
):
    watch = TurnWatch()
    for name, document in events:
        watch.observe(name, json.dumps(document).encode())
    # As parsed by a reader that is more generous than ours: with lone surrogates, NaN and endless integers.
    watch.usage = usage_in(failure.get("usage")) or watch.usage
    watch.windows = windows_in_event(failure) or watch.windows
    watch.credits = credits_in_event(failure) or watch.credits

    for verdict in (judge_event(failure), judge_event(watch.failure)):
        assert_can_be_told(told_of(verdict, watch, headers))
        assert 400 <= status_of(verdict) <= 599


@PATIENT
@given(st.integers(100, 999), HEADERS, DOCUMENT | st.binary())
def test_whatever_an_answer_says_can_be_reported(status: int, headers: dict[str, str], body: dict[str, Any] | bytes):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    assert_can_be_told(told_of(judge_answer(status, headers, raw), TurnWatch(), headers))


@PATIENT
@given(DOCUMENT, HEADERS)
def test_whatever_a_client_says_can_be_asked_for(document: dict[str, Any], headers: dict[str, str]):
    try:
        needs = TurnRequest.of(known_keys(json.dumps(document))).needs(headers)
    except BodyMalformed:  # no JSON, like infinity or half a surrogate: nothing is asked for
        return

    message = session_pb.SessionRequest()
    acquire = message.acquires.add()
    wire.AcquireWriter().fill(acquire, "1", ("x",), key_sha256=None, peer=None, needs=needs, max_wait=None)
    sent = message.acquires[0].account
    texts = [sent.model, sent.preferred_owner_key, sent.required_owner_key, *sent.affinity_keys]
    assert all(len(text.encode()) <= 128 for text in texts)
