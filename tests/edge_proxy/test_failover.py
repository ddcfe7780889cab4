"""Tries on other accounts: only before the first visible event, bounded, and never for turns bound to one account."""

from dataclasses import replace

import pytest

from admission_client.lease import AccountKind, Denial, DenialReason, Outcome
from admission_client.memory import MemoryAdmission
from tests.edge_proxy.running import RunningEdge, accounts, running_edge
from tests.edge_proxy.scripted_upstream import (
    RATE_LIMITS,
    TURN,
    ScriptedUpstream,
    created,
    event,
    failed,
    refusal,
    stream,
)

CODEX = "/backend-api/codex/responses"
STREAMED = {"model": "gpt-5.5", "input": [], "stream": True}
WHOLE = b"".join(event(part) for part in TURN)
BOUND = {**STREAMED, "previous_response_id": "resp_0"}


@pytest.fixture
def admission(upstream: ScriptedUpstream) -> MemoryAdmission:
    return MemoryAdmission(accounts=accounts(upstream.url, *[AccountKind.CHATGPT] * 4))


def _tokens(upstream: ScriptedUpstream) -> list[str]:
    return [seen.headers["authorization"] for seen in upstream.seen]


@pytest.mark.parametrize(
    ("first", "outcome"),
    [
        (refusal(401, {"code": "token_invalidated"}), Outcome.AUTH_REJECTED),
        (refusal(403), Outcome.AUTH_REJECTED),
        (refusal(401, {"message": "Your account has been deactivated."}), Outcome.ACCOUNT_DISABLED),
        (refusal(402, {"code": "x"}), Outcome.QUOTA_EXCEEDED),
        (refusal(404), Outcome.MISCONFIGURED),
        (refusal(429), Outcome.RATE_LIMITED),
        (refusal(429, {"type": "usage_limit_reached", "resets_in_seconds": 60}), Outcome.RATE_LIMITED),
        (refusal(429, {"code": "insufficient_quota"}), Outcome.QUOTA_EXCEEDED),
        (refusal(500), Outcome.TRANSIENT_ERROR),
        (stream("cut"), Outcome.TRANSIENT_ERROR),
        (stream(), Outcome.TRANSIENT_ERROR),
        (stream(RATE_LIMITS, failed("usage_limit_reached")), Outcome.RATE_LIMITED),
        (stream({"type": "error", "status": 503, "error": {"code": "server_is_overloaded"}}), Outcome.TRANSIENT_ERROR),
    ],
)
async def test_a_failure_before_the_first_event_goes_to_another_account_unseen(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream, first, outcome: Outcome
):
    upstream.script(first, stream(*TURN))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert _tokens(upstream) == ["Bearer token-1", "Bearer token-2"]
    assert [report.outcome for report in admission.reports] == [outcome, Outcome.SUCCEEDED]
    assert edge.idle


async def test_at_most_three_accounts_are_tried(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(refusal(500, {"code": "boom", "message": "down"}))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "boom")
    assert len(upstream.seen) == 3


async def test_nothing_moves_after_the_first_event(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    failure = failed("usage_limit_reached")
    upstream.script(stream(created(), failure))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert answer.content == event(created()) + event(failure)
    assert len(upstream.seen) == 1
    assert admission.reports[0].outcome is Outcome.RATE_LIMITED


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_the_requests_own_fault_surfaces_unchanged_and_blames_no_account(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream, status: int
):
    upstream.script(refusal(status, {"code": "x", "message": "y", "param": "z"}))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert (answer.status_code, answer.json()) == (status, {"error": {"code": "x", "message": "y", "param": "z"}})
    assert len(upstream.seen) == 1
    assert admission.reports[0].outcome is Outcome.NEUTRAL


async def test_a_bound_turn_never_moves(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(refusal(429, {"code": "rate_limit_exceeded", "message": "slow"}, retry_after="7"))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=BOUND)

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(("body", "alone"), [(BOUND, False), (STREAMED, True)])
async def test_a_rejected_credential_is_waited_for_when_no_other_account_will_do(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream, body, alone: bool
):
    if alone:
        admission.accounts = admission.accounts[:1]

    async def answer_401_and_refresh(request, at):
        admission.accounts[0] = replace(admission.accounts[0], access_token="token-new", credential_version=2)
        return await refusal(401)(request, at)

    upstream.script(answer_401_and_refresh, stream(*TURN))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=body)

    assert answer.status_code == 200
    assert _tokens(upstream) == ["Bearer token-1", "Bearer token-new"]


async def test_a_rejected_credential_never_leaves_as_401(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(refusal(401, {"code": "token_invalidated"}))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=BOUND)

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_auth_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_request_that_every_account_rejects_blames_the_first_only(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(refusal(401, {"code": "token_invalidated"}))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_auth_unavailable")
    assert _tokens(upstream) == ["Bearer token-1", "Bearer token-2", "Bearer token-3"]
    assert [report.outcome for report in admission.reports] == [
        Outcome.AUTH_REJECTED,
        Outcome.NEUTRAL,
        Outcome.NEUTRAL,
    ]


async def test_a_pool_out_of_quota_says_so_after_the_last_account(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    async def quota_and_then_nobody(request, at):
        admission.refuse_next("accounts/-/streams", Denial(reason=DenialReason.QUOTA_EXHAUSTED, retry_after=90.0))
        return await refusal(429, {"code": "rate_limit_exceeded"})(request, at)

    upstream.script(quota_and_then_nobody)
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "usage_limit_reached")


async def test_every_429_of_the_upstream_leaves_with_a_whole_retry_after(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    admission.accounts = admission.accounts[:1]
    upstream.script(refusal(429, {"message": "slow down"}, retry_after="0.5"))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


async def test_the_retry_budget_bounds_retries_over_all_requests(
    admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(refusal(500))
    async with running_edge(admission, retry_budget=1) as edge, edge.client() as client:
        await client.post(CODEX, json=STREAMED)
        await client.post(CODEX, json=STREAMED)

    assert len(upstream.seen) == 3


async def test_an_unreachable_upstream_is_tried_elsewhere(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream, free_port: int
):
    admission.accounts[0] = replace(admission.accounts[0], base_url=f"http://127.0.0.1:{free_port}")
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert answer.status_code == 200
    assert _tokens(upstream) == ["Bearer token-2"]


async def test_a_folded_turn_that_fails_becomes_the_like_http_error(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(stream(created(), failed("rate_limit_exceeded", "try again in 3s")))
    async with edge.client() as client:
        answer = await client.post("/v1/responses", json={"model": "gpt-5.5", "input": "hi"})

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


async def test_a_folded_turn_whose_credential_failed_late_is_no_401(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(stream(created(), {"type": "error", "status": 401, "error": {"code": "token_invalidated"}}))
    async with edge.client() as client:
        answer = await client.post("/v1/responses", json={"model": "gpt-5.5", "input": "hi"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_auth_unavailable")


async def test_a_connection_that_the_upstream_closed_meanwhile_blames_no_account(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    async def close_unanswered(request, _at):
        request.transport.abort()
        return await refusal(500)(request, _at)

    upstream.script(close_unanswered, stream(*TURN))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert _tokens(upstream) == ["Bearer token-1", "Bearer token-1"]
    assert [report.outcome for report in admission.reports] == [Outcome.SUCCEEDED]
