"""An upstream at an address where it may not be: nothing is sent, and the account is reported, not the client."""

import json
import socket
from dataclasses import replace

import pytest

from admission_client.lease import AccountKind, Outcome
from admission_client.memory import MemoryAdmission
from edge_proxy.upstream_address import AddressRefused, AddressRule
from tests.edge_proxy.running import RunningEdge, accounts
from tests.edge_proxy.scripted_upstream import TURN, ScriptedUpstream, document, sockets, stream
from tests.edge_proxy.test_socket_turns import open_socket, whole_turn

CODEX = "/backend-api/codex/responses"
STREAMED = {"model": "gpt-5.5", "input": [], "stream": True}
SPELLINGS = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"]
"""Ways to say "this machine"; `localhost` is a name that resolves to it, as a rebound name would."""
NOT_DIALLED = {"127.1", "2130706433"}
"""Spellings that the HTTP client itself does not understand."""


def _at(admission: MemoryAdmission, upstream: ScriptedUpstream, host: str, *, private: bool) -> None:
    url = f"{upstream.url.replace('127.0.0.1', host)}/backend-api"
    admission.accounts[0] = replace(admission.accounts[0], base_url=url, private_upstream=private)


@pytest.mark.parametrize("host", SPELLINGS)
async def test_a_turn_does_not_reach_a_private_address(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream, host: str
):
    _at(admission, upstream, host, private=False)
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert answer.status_code == 502
    assert upstream.seen == []
    assert edge.idle
    if host not in NOT_DIALLED:
        assert answer.json()["error"]["code"] == "upstream_address_refused"
        assert [report.outcome for report in admission.reports] == [Outcome.MISCONFIGURED]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_a_socket_does_not_reach_a_private_address(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream, host: str
):
    upstream.script(sockets(upstream))
    _at(admission, upstream, host, private=False)
    async with open_socket(edge) as client:
        events = await whole_turn(client)

    assert (events[-1]["status"], events[-1]["error"]["code"]) == (502, "upstream_address_refused")
    assert [report.outcome for report in admission.reports] == [Outcome.MISCONFIGURED]
    assert upstream.sockets_opened == 0


async def test_another_account_serves_instead(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    admission.accounts = accounts(upstream.url, AccountKind.CHATGPT, AccountKind.CHATGPT)
    _at(admission, upstream, "localhost", private=False)
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert answer.status_code == 200
    assert [report.outcome for report in admission.reports] == [Outcome.MISCONFIGURED, Outcome.SUCCEEDED]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_an_account_that_may_be_private_is_served(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream, host: str
):
    _at(admission, upstream, host, private=True)
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)
    upstream.script(sockets(upstream))
    async with open_socket(edge) as client:
        events = await whole_turn(client)

    assert answer.status_code == 200
    assert events[-1]["type"] == "response.completed"


async def test_an_open_connection_of_another_account_is_no_way_around(
    edge: RunningEdge, admission: MemoryAdmission, upstream: ScriptedUpstream
):
    upstream.script(document({"models": []}))
    async with edge.client() as client:
        first = await client.get("/backend-api/codex/models")  # leaves a connection in the pool
        _at(admission, upstream, "127.0.0.1", private=False)
        second = await client.get("/backend-api/codex/models")

    assert (first.status_code, second.status_code) == (200, 502)
    assert len(upstream.seen) == 1


async def test_a_redirect_is_not_followed(edge: RunningEdge, upstream: ScriptedUpstream):
    async def elsewhere(request, scripted):
        answer = await document({"detail": "moved"}, location=f"{upstream.url}/elsewhere")(request, scripted)
        answer.set_status(307)
        return answer

    upstream.script(elsewhere, stream(*TURN))
    async with edge.client() as client:
        answer = await client.post(CODEX, json=STREAMED)

    assert [seen.path for seen in upstream.seen] == ["/backend-api/codex/responses"]
    assert answer.status_code != 200
    assert "location" not in answer.headers


async def test_a_redirected_handshake_is_not_followed(edge: RunningEdge, upstream: ScriptedUpstream):
    async def elsewhere(request, scripted):
        answer = await document({"detail": "moved"}, location=f"{upstream.url}/elsewhere")(request, scripted)
        answer.set_status(302)
        return answer

    upstream.script(elsewhere)
    async with open_socket(edge) as client:
        events = await whole_turn(client)

    assert {seen.path for seen in upstream.seen} == {"/backend-api/codex/responses"}
    assert events[-1]["type"] == "error", json.dumps(events)


async def test_plain_http_does_not_go_to_public_addresses():
    rule = AddressRule(secure=False, allow_private=True)
    public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80))

    with pytest.raises(AddressRefused):
        rule.socket_to(public)
