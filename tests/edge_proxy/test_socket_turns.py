"""Turns over a WebSocket: what goes up, what comes back, and which account and upstream socket serve them."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from admission_client.lease import AccountKind, Denial, DenialReason, Outcome
from admission_client.memory import MemoryAdmission
from tests.edge_proxy.running import KEY, RunningEdge, accounts, running_edge, until
from tests.edge_proxy.scripted_upstream import (
    RATE_LIMITS,
    TURN,
    ScriptedUpstream,
    completed,
    created,
    delta,
    failed,
    refusal,
    sockets,
    stream,
)

CODEX = "/backend-api/codex/responses"
V1 = "/v1/responses"


@pytest.fixture(autouse=True)
def _answer_sockets(upstream: ScriptedUpstream) -> None:
    upstream.script(sockets(upstream))


@pytest.fixture
def two_accounts(admission: MemoryAdmission, upstream: ScriptedUpstream) -> MemoryAdmission:
    admission.accounts = accounts(upstream.url, AccountKind.CHATGPT, AccountKind.CHATGPT)
    return admission


def open_socket(edge: RunningEdge, path: str = CODEX, **headers: str) -> connect:
    sent = {**KEY, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return connect(f"ws{edge.url.removeprefix('http')}{path}", additional_headers=sent, proxy=None, compression=None)


def turn(**keys: Any) -> str:
    return json.dumps({"type": "response.create", "model": "gpt-5.5", "input": [], **keys})


async def receive(socket: ClientConnection) -> dict[str, Any]:
    document = json.loads(await asyncio.wait_for(socket.recv(), 5))
    assert isinstance(document, dict)
    return document


async def events_of_turn(socket: ClientConnection) -> AsyncIterator[dict[str, Any]]:
    while True:
        frame = await receive(socket)
        yield frame
        if frame["type"] in {"response.completed", "response.failed", "error"}:
            return


async def whole_turn(socket: ClientConnection, **keys: Any) -> list[dict[str, Any]]:
    await socket.send(turn(**keys))
    return [event async for event in events_of_turn(socket)]


async def test_events_come_back_as_frames(edge: RunningEdge):
    async with open_socket(edge) as socket:
        events = await whole_turn(socket)

    assert events == TURN
    await until(lambda: edge.idle)


async def test_the_codex_route_sends_the_very_frame_of_the_client(edge: RunningEdge, upstream: ScriptedUpstream):
    async with open_socket(edge) as socket:
        await whole_turn(socket, unknown=[1], store=False)

    token, frame = upstream.frames[0]
    assert token == "token-1"
    assert frame == {"type": "response.create", "model": "gpt-5.5", "input": [], "unknown": [1], "store": False}
    assert upstream.seen[0].path == CODEX
    assert upstream.seen[0].headers["openai-beta"] == "responses_websockets=2026-02-06"


async def test_a_v1_turn_becomes_what_the_backend_accepts(edge: RunningEdge, upstream: ScriptedUpstream):
    async with open_socket(edge, V1) as socket:
        await whole_turn(socket, temperature=1, stream_id="a")

    frame = upstream.frames[0][1]
    assert frame["store"] is False
    assert not {"temperature", "stream", "stream_id"} & frame.keys()


async def test_work_is_asked_for_with_the_connect_stage_only_while_connecting(
    edge: RunningEdge, admission: MemoryAdmission
):
    async with open_socket(edge) as socket:
        await whole_turn(socket)
        await whole_turn(socket)

    work = ("stages/response_create", "keys/-/streams", "accounts/-/streams", "accounts/-/response_creates")
    assert admission.asked == [("lanes/proxy_websocket",), ("stages/upstream_websocket_connect", *work), work]


async def test_creation_seats_come_back_at_response_created(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(sockets(upstream, [RATE_LIMITS, created(), "hang", completed()]))
    async with open_socket(edge) as socket:
        await socket.send(turn())
        assert (await receive(socket))["type"] == "codex.rate_limits"
        assert (await receive(socket))["type"] == "response.created"

        assert set(admission.held) == {"lanes/proxy_websocket", "keys/key_1/streams", "accounts/acc_1/streams"}


async def test_turns_of_a_line_share_one_upstream_socket(edge: RunningEdge, upstream: ScriptedUpstream):
    async with open_socket(edge) as socket:
        await whole_turn(socket, generate=False)
        await whole_turn(socket, previous_response_id="resp_1")

    assert upstream.sockets_opened == 1
    assert upstream.frames[0][1]["generate"] is False
    assert upstream.frames[1][1]["previous_response_id"] == "resp_1"


async def test_a_turn_that_goes_on_waits_for_its_own_account(
    edge: RunningEdge, two_accounts: MemoryAdmission, upstream: ScriptedUpstream
):
    async with open_socket(edge) as socket:
        await whole_turn(socket)
        two_accounts.set_limit("accounts/-/streams", 1, max_wait=5)
        two_accounts.held["accounts/acc_1/streams"] = 1
        await socket.send(turn(previous_response_id="resp_1"))
        await until(lambda: two_accounts.waiting("accounts/-/streams") == 1)
        two_accounts.give_back("accounts/acc_1/streams")
        events = [event async for event in events_of_turn(socket)]

    assert events == TURN
    assert [token for token, _ in upstream.frames] == ["token-1", "token-1"]


async def test_a_turn_that_starts_anew_moves_to_an_account_with_room(
    edge: RunningEdge, two_accounts: MemoryAdmission, upstream: ScriptedUpstream
):
    async with open_socket(edge) as socket:
        await whole_turn(socket)
        two_accounts.set_limit("accounts/-/streams", 1)
        two_accounts.held["accounts/acc_1/streams"] = 1
        events = await whole_turn(socket)
        assert upstream.sockets_open == 1

    assert events == TURN
    assert [token for token, _ in upstream.frames] == ["token-1", "token-2"]


async def test_lines_run_side_by_side_and_are_addressed(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(sockets(upstream, [created("resp_a"), "hang", completed("resp_a")], TURN))
    async with open_socket(edge) as socket:
        await socket.send(turn(stream_id="a"))
        first = await receive(socket)
        await socket.send(turn(stream_id="b"))
        second = [event async for event in events_of_turn(socket)]
        upstream.release.set()
        last = await receive(socket)

    assert first["stream_id"] == last["stream_id"] == "a"
    assert {event["stream_id"] for event in second} == {"b"}
    assert upstream.sockets_opened == 2


async def test_a_new_line_takes_the_place_of_the_one_that_was_idle_longest(
    admission: MemoryAdmission, upstream: ScriptedUpstream
):
    async with running_edge(admission, lines_per_socket=2) as edge, open_socket(edge) as socket:
        for name in ("a", "b", "a", "c"):
            assert (await whole_turn(socket, stream_id=name))[-1]["type"] == "response.completed"
        await until(lambda: upstream.sockets_open == 2)
        opened = upstream.sockets_opened
        await whole_turn(socket, stream_id="a")

    assert (opened, upstream.sockets_opened) == (3, 3)


async def test_one_line_too_many_is_refused_while_all_are_busy(admission: MemoryAdmission, upstream: ScriptedUpstream):
    upstream.script(sockets(upstream, [created(), "hang", completed()]))
    async with running_edge(admission, lines_per_socket=1) as edge, open_socket(edge) as socket:
        await socket.send(turn(stream_id="a"))
        await receive(socket)

        (refused,) = await whole_turn(socket, stream_id="b")

    assert (refused["status"], refused["stream_id"]) == (400, "b")


async def test_turns_of_one_line_wait_for_one_another(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(sockets(upstream, [created("resp_a"), "hang", completed("resp_a")], TURN))
    async with open_socket(edge) as socket:
        await socket.send(turn())
        await receive(socket)
        await socket.send(turn(input=["second"]))
        await socket.send(json.dumps({"type": "response.cancel"}))
        upstream.release.set()
        assert (await receive(socket))["response"]["id"] == "resp_a"
        second = [event async for event in events_of_turn(socket)]

    assert second == TURN
    assert [frame["type"] for _, frame in upstream.frames] == ["response.create", "response.cancel", "response.create"]


@pytest.mark.parametrize("frame", ["{", "[]", b"{}", '{"type":7}', '{"type":"response.cancel"}'])
async def test_a_frame_that_makes_no_sense_gets_an_error_frame_and_the_socket_stays(
    edge: RunningEdge, frame: str | bytes
):
    async with open_socket(edge) as socket:
        await socket.send(frame)
        error = await receive(socket)
        events = await whole_turn(socket)

    assert (error["type"], error["status"]) == ("error", 400)
    assert events == TURN


async def test_too_many_waiting_turns_are_refused_by_frame(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(sockets(upstream, [created(), "hang", completed()]))
    async with open_socket(edge) as socket:
        await socket.send(turn())
        await receive(socket)
        for _ in range(9):
            await socket.send(turn())
        error = await receive(socket)

    assert (error["type"], error["status"]) == ("error", 400)


async def test_a_denial_is_an_error_frame_with_status_and_retry_after(edge: RunningEdge, admission: MemoryAdmission):
    admission.refuse_next("accounts/-/streams", Denial(reason=DenialReason.ACCOUNT_STREAMS_FULL, retry_after=3.0))
    async with open_socket(edge) as socket:
        events = await whole_turn(socket)
        again = await whole_turn(socket)

    assert events[0]["status"] == 429
    assert events[0]["error"]["code"] == "account_stream_cap"
    assert events[0]["headers"] == {"retry-after": "3"}
    assert again == TURN


@pytest.mark.parametrize(
    "failure",
    [
        failed("usage_limit_reached"),
        {"type": "error", "status": 429, "error": {"type": "usage_limit_reached", "message": "no"}},
        failed("server_is_overloaded"),
        "cut",
    ],
)
async def test_a_failure_before_the_first_event_is_replayed_on_another_account_unseen(
    edge: RunningEdge, two_accounts: MemoryAdmission, upstream: ScriptedUpstream, failure: Any
):
    upstream.script(sockets(upstream, [failure], TURN))
    async with open_socket(edge) as socket:
        events = await whole_turn(socket)

    assert events == TURN
    assert [token for token, _ in upstream.frames] == ["token-1", "token-2"]
    assert two_accounts.reports[0].outcome is not Outcome.SUCCEEDED


async def test_a_turn_that_every_account_rejects_blames_the_first_only(
    edge: RunningEdge, two_accounts: MemoryAdmission, upstream: ScriptedUpstream
):
    rejected = {"type": "error", "status": 401, "error": {"code": "token_invalidated", "message": "no"}}
    upstream.script(sockets(upstream, [rejected], [rejected], [rejected]))
    async with open_socket(edge) as socket:
        events = await whole_turn(socket)

    assert (events[0]["status"], events[0]["error"]["code"]) == (503, "upstream_auth_unavailable")
    assert [token for token, _ in upstream.frames] == ["token-1", "token-2"]
    assert [report.outcome for report in two_accounts.reports] == [Outcome.AUTH_REJECTED, Outcome.NEUTRAL]


async def test_a_cut_after_the_first_event_ends_in_response_failed(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(sockets(upstream, [created(), delta("x"), "cut"], TURN))
    async with open_socket(edge) as socket:
        events = await whole_turn(socket)
        again = await whole_turn(socket)

    assert [event["type"] for event in events] == ["response.created", "response.output_text.delta", "response.failed"]
    assert events[-1]["response"]["error"]["code"] == "stream_incomplete"
    assert again == TURN


async def test_an_upstream_that_closes_between_turns_leaves_the_client_open(
    edge: RunningEdge, upstream: ScriptedUpstream
):
    upstream.script(sockets(upstream, [*TURN, "close"], TURN))
    async with open_socket(edge) as socket:
        await whole_turn(socket)
        await until(lambda: upstream.sockets_open == 0)
        events = await whole_turn(socket)

    assert events == TURN
    assert upstream.sockets_opened == 2


async def test_an_error_frame_between_turns_is_made_readable_too(edge: RunningEdge, upstream: ScriptedUpstream):
    bare = {"type": "error", "status": 429, "error": {"code": "rate_limit_exceeded", "message": "no"}}
    upstream.script(sockets(upstream, [*TURN, "hang", bare]))
    async with open_socket(edge) as socket:
        await whole_turn(socket)
        await until(lambda: edge.admission.held == {"lanes/proxy_websocket": 1})
        upstream.release.set()

        told = await receive(socket)

    assert (told["status"], told["headers"]) == (429, {"retry-after": "5"})


async def test_previous_response_not_found_reaches_the_client_unchanged(
    edge: RunningEdge, two_accounts: MemoryAdmission, upstream: ScriptedUpstream
):
    error = {"type": "invalid_request_error", "code": "previous_response_not_found", "message": "gone"}
    lost = {"type": "error", "status": 400, "error": error}
    upstream.script(sockets(upstream, [lost]))
    async with open_socket(edge) as socket:
        events = await whole_turn(socket, previous_response_id="resp_0")

    assert events == [lost]
    assert upstream.sockets_opened == 1


async def test_an_upstream_error_frame_without_status_is_given_one(edge: RunningEdge, upstream: ScriptedUpstream):
    bare = {"type": "error", "error": {"code": "rate_limit_exceeded", "message": "try again in 2s"}}
    upstream.script(sockets(upstream, [created(), bare]))
    async with open_socket(edge) as socket:
        events = await whole_turn(socket)

    assert events[-1]["status"] == 429
    assert events[-1]["headers"] == {"retry-after": "2"}


async def test_an_upstream_without_sockets_is_spoken_to_over_http(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(refusal(426), stream(*TURN))
    async with open_socket(edge) as socket:
        events = await whole_turn(socket, previous_response_id="resp_0", stream_id="a")

    assert [event["type"] for event in events] == [part["type"] for part in TURN]
    assert upstream.seen[1].method == "POST"
    assert upstream.seen[1].json == {
        "model": "gpt-5.5",
        "input": [],
        "previous_response_id": "resp_0",
        "stream": True,
    }


async def test_a_refused_upstream_handshake_moves_to_another_account(
    edge: RunningEdge, two_accounts: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(refusal(401, {"code": "token_invalidated"}), sockets(upstream))
    async with open_socket(edge) as socket:
        events = await whole_turn(socket)

    assert events == TURN
    assert two_accounts.reports[0].outcome is Outcome.AUTH_REJECTED


async def test_upstream_turn_state_is_told_to_codex_by_frame(edge: RunningEdge, upstream: ScriptedUpstream):
    upstream.script(sockets(upstream, headers={"x-codex-turn-state": "state-1"}))
    async with open_socket(edge, originator="codex_exec") as socket:
        await socket.send(turn())
        first = await receive(socket)

    assert first == {"type": "response.metadata", "headers": {"x-codex-turn-state": "state-1"}}


async def test_a_turn_state_is_dropped_when_its_owner_moved(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    admission.accounts = [replace(account, owner_moved=True) for account in admission.accounts]
    async with open_socket(edge, x_codex_turn_state="old") as socket:
        await whole_turn(socket, client_metadata={"x-codex-turn-state": "old", "turn_id": "t"})

    assert upstream.frames[0][1]["client_metadata"] == {"turn_id": "t"}
    assert "x-codex-turn-state" not in upstream.seen[0].headers


async def test_a_client_that_leaves_during_a_turn_ends_it_upstream_and_gives_all_back(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(sockets(upstream, [created(), "hang", completed()]))
    socket = await open_socket(edge)
    await socket.send(turn())
    await receive(socket)

    socket.transport.abort()

    await until(lambda: edge.idle)
    await until(lambda: not admission.held)
    assert [report.outcome for report in admission.reports] == [Outcome.NEUTRAL]


async def test_a_full_connect_stage_is_an_error_frame_asks_no_upstream_and_blames_no_account(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    admission.set_limit("stages/upstream_websocket_connect", 1)
    admission.held["stages/upstream_websocket_connect"] = 1
    async with open_socket(edge) as socket:
        (refused,) = await whole_turn(socket)

    assert (refused["status"], refused["error"]["code"]) == (429, "global_admission_timeout")
    assert int(refused["headers"]["retry-after"]) >= 1
    assert not upstream.seen
    assert not admission.reports


async def test_a_compaction_on_a_socket_passes_the_stage_of_compactions(edge: RunningEdge, admission: MemoryAdmission):
    async with open_socket(edge) as socket:
        await whole_turn(socket, input=[{"type": "compaction_trigger"}])

    assert "stages/compact_response_create" in admission.asked[1]
    assert admission.asked[0] == ("lanes/proxy_websocket",)


async def test_many_turns_with_every_kind_of_end_leave_nothing_behind(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    endings: list[list[Any]] = [
        TURN,
        [created(), "cut"],
        ["cut"],
        [created(), failed("x")],
        [failed("server_error")],
        [*TURN, "close"],
    ]
    upstream.script(sockets(upstream, *[endings[number % len(endings)] for number in range(60)], TURN))

    async def one(number: int) -> None:
        socket = await open_socket(edge)
        await socket.send(turn(stream_id=str(number % 3)))
        if number % 4:
            await receive(socket)
        if number % 2:
            socket.transport.abort()
        else:
            await socket.close()

    for start in range(0, 60, 10):
        await asyncio.gather(*[one(number) for number in range(start, start + 10)])

    await until(lambda: edge.idle)
    await until(lambda: upstream.sockets_open == 0)
    assert not admission.held
    assert edge.count("sluicegate_edge_in_flight", transport="websocket") == 0
    assert edge.count("sluicegate_edge_body_bytes") == 0
