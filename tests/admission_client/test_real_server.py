"""The client with the real server, on real sockets: restarts, silence, two holders of one name, policy and state."""

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest

from admission_client.errors import (
    AcquireRejected,
    AdmissionUnavailable,
    Denied,
    PolicyRefused,
    SessionSuperseded,
    UnknownSession,
)
from admission_client.lease import AccountKind, AccountNeeds, AccountReport, Credits, DenialReason, Outcome, TokenUsage
from admission_client.policy import AccountPolicy, AccountStatus, KeyPolicy, Policy, ResourceSettings
from admission_client.session import AdmissionClient
from admission_client.state import StateReader
from admission_client.sync import SyncClient, SyncStatus
from tests.admission_client.real_server import running_server
from tests.admission_client.scripted_server import eventually

KEY = b"k" * 32
POLICY = Policy(
    resources=(
        ResourceSettings(name="lanes/proxy_http", limit=2),
        ResourceSettings(name="stages/response_create", limit=2, max_wait=5.0),
        ResourceSettings(name="accounts/-/streams", limit=2, max_wait=5.0),
        ResourceSettings(name="keys/-/streams", limit=0),
    ),
    accounts=(
        AccountPolicy(
            account_id="acc_1",
            kind=AccountKind.CHATGPT,
            base_url="http://127.0.0.1:9",
            access_token="secret-token",
            credential_version=3,
        ),
    ),
    keys=(KeyPolicy(key_id="key_1", key_sha256=KEY),),
)
WORK = ["stages/response_create", "keys/-/streams", "accounts/-/streams"]


def edge(server, instance="edge-1"):
    return AdmissionClient(server.target, server.edge_token, instance)


async def test_a_turn_gets_its_account_with_its_credential():
    async with running_server() as server, server.controlled_by(POLICY), edge(server) as client:
        async with (
            client.acquire(["lanes/proxy_http"], key_sha256=KEY) as lane,
            client.acquire(WORK, key_sha256=KEY, account=AccountNeeds(), label="req-1") as work,
        ):
            assert lane.key_id == "key_1"
            assert work.resources == ("stages/response_create", "keys/key_1/streams", "accounts/acc_1/streams")
            assert work.account is not None
            assert work.account.access_token == "secret-token"
            assert work.account.credential_version == 3
            assert "secret-token" not in repr(work.account)

        await eventually(lambda: not server.held("accounts/acc_1/streams"))


async def test_what_cannot_be_said_costs_nobody_else_the_session():
    strange: list[dict[str, Any]] = [
        {"outcome": Outcome.TRANSIENT_ERROR, "status": 2**40, "code": "\ud800"},
        {"outcome": Outcome.RATE_LIMITED, "resets_after": math.inf},
        {"usage": TokenUsage(input_tokens=10**30), "credits": Credits(balance="\udcff")},
        {"outcome": Outcome.SUCCEEDED, "resets_after": "soon"},
    ]
    async with running_server() as server, server.controlled_by(POLICY), edge(server) as client:
        for fields in strange:
            client.report(AccountReport(account_id="acc_1", **fields))
        await client.wait_until_ready(5)
        for fields in strange:
            client.report(AccountReport(account_id="acc_1", **fields))
        async with client.acquire(["lanes/proxy_http"], peer="me") as lane:
            with pytest.raises(AcquireRejected):
                async with client.acquire(WORK, key_sha256=KEY, account=AccountNeeds(model="\ud800")):
                    pass
            async with client.acquire(["lanes/proxy_http"], peer="other"):
                still_live = lane.live

        assert still_live
        assert client.connected


async def test_leases_survive_a_restart_of_the_server(tmp_path):
    async with running_server(state_dir=tmp_path) as server, server.controlled_by(POLICY):
        client = edge(server)
        await client.__aenter__()
        lane = client.acquire(["lanes/proxy_http"], peer="me")
        await lane.__aenter__()
        epoch, port = client.epoch, server.port
    async with running_server(state_dir=tmp_path, port=port) as server:
        client._metadata = (("authorization", f"Bearer {server.edge_token}"),)
        async with server.controlled_by(POLICY):
            await eventually(lambda: client.ready)
            held, live = server.held("lanes/proxy_http"), lane.live
            async with client.acquire(["lanes/proxy_http"], peer="other"):
                with pytest.raises(Denied) as denied:
                    async with client.acquire(["lanes/proxy_http"], peer="third"):
                        pass
            lane.release()
            await eventually(lambda: not server.held("lanes/proxy_http"))
            await client.__aexit__(None, None, None)

    assert client.epoch > epoch
    assert held == 1
    assert live
    assert denied.value.denial.reason is DenialReason.LANE_FULL


async def test_seats_of_a_silent_holder_come_back():
    async with running_server(session_ttl=0.4, heartbeat=0.1) as server, server.controlled_by(POLICY):
        client = edge(server)
        await client.__aenter__()
        lane = client.acquire(["lanes/proxy_http"], peer="me")
        await lane.__aenter__()
        # What `kill -9` does: no close, no release, no heartbeat.
        client._life.cancel()
        await asyncio.gather(client._life, return_exceptions=True)
        await eventually(lambda: not server.held("lanes/proxy_http"))

        assert not lane.live


async def test_closing_gives_everything_back_at_once():
    async with running_server() as server, server.controlled_by(POLICY):
        async with edge(server) as client:
            await client.acquire(["lanes/proxy_http"], peer="me").__aenter__()
            assert server.held("lanes/proxy_http") == 1
        await eventually(lambda: not server.sessions)

        assert server.held("lanes/proxy_http") == 0


async def test_a_new_holder_of_the_same_name_ends_the_old_one():
    async with (
        running_server() as server,
        server.controlled_by(POLICY),
        edge(server) as old,
        old.acquire(["lanes/proxy_http"], peer="me") as lane,
        edge(server) as new,
    ):
        await eventually(lambda: new.connected and old.ended)
        with pytest.raises(SessionSuperseded):
            async with old.acquire(["lanes/proxy_http"], peer="me"):
                pass

        assert not lane.live
        assert server.held("lanes/proxy_http") == 0


async def test_a_wrong_token_is_no_way_in():
    async with running_server() as server, AdmissionClient(server.target, "wrong-token", "edge-1") as client:
        with pytest.raises(AdmissionUnavailable):
            await client.wait_until_ready(0.5)


async def test_heartbeats_keep_many_leases_alive():
    policy = replace(POLICY, resources=(ResourceSettings(name="lanes/proxy_http", limit=0),))
    async with (
        running_server(session_ttl=0.9, heartbeat=0.1) as server,
        server.controlled_by(policy),
        edge(server) as client,
    ):
        lanes = [client.acquire(["lanes/proxy_http"], peer="me") for _ in range(500)]
        await asyncio.gather(*(lane.__aenter__() for lane in lanes))
        sessions = list(server.sessions)
        began = asyncio.get_running_loop().time()
        await eventually(lambda: asyncio.get_running_loop().time() > began + 2.0)

        assert server.sessions == sessions
        assert server.held("lanes/proxy_http") == 500
        assert all(lane.live for lane in lanes)


async def test_limits_change_live_and_wrong_ones_are_refused_as_a_whole():
    async with running_server() as server, server.controlled_by(POLICY) as sync, edge(server) as client:
        wrong = replace(POLICY, resources=(ResourceSettings(name="gates/nonsense", limit=1),))
        with pytest.raises(PolicyRefused) as refused:
            await sync.update(wrong)
        version = await sync.update(
            replace(POLICY, resources=(ResourceSettings(name="lanes/proxy_http", limit=1), *POLICY.resources[1:]))
        )
        async with client.acquire(["lanes/proxy_http"], peer="a"):
            with pytest.raises(Denied) as denied:
                async with client.acquire(["lanes/proxy_http"], peer="b"):
                    pass

        assert "resources[0]" in refused.value.field
        assert sync.applied_version == version
        assert denied.value.denial.limit == 1


async def test_an_older_controller_is_refused():
    async def ignore(_signals):
        pass

    async with (
        running_server() as server,
        server.controlled_by(POLICY, term=5),
        SyncClient(server.target, server.control_token, "control-0", 4, on_signals=ignore) as older,
    ):
        await eventually(lambda: older.status is SyncStatus.TERM_REFUSED)


async def test_what_an_edge_saw_reaches_the_controller():
    seen = []

    async def note(signals):
        seen.extend(signals)

    async with (
        running_server() as server,
        SyncClient(server.target, server.control_token, "control-1", 1, on_signals=note) as sync,
        edge(server) as client,
    ):
        await sync.update(POLICY)
        await client.wait_until_ready(5)
        client.report(
            AccountReport(
                account_id="acc_1",
                credential_version=3,
                outcome=Outcome.AUTH_REJECTED,
                status=401,
                usage=TokenUsage(input_tokens=7),
            )
        )
        await eventually(lambda: any(signal.status_event for signal in seen))

    event = next(signal.status_event for signal in seen if signal.status_event)
    assert event.outcome is Outcome.AUTH_REJECTED
    assert event.credential_version == 3
    assert event.refresh_wanted


async def test_a_session_can_be_forgotten_by_hand():
    async with (
        running_server() as server,
        server.controlled_by(POLICY) as sync,
        edge(server) as client,
        client.acquire(["lanes/proxy_http"], peer="me"),
    ):
        ended = await sync.forget_session(client.session_id)
        with pytest.raises(UnknownSession):
            await sync.forget_session("no_such_session")

        assert ended == 1


async def test_the_state_can_be_read():
    async with (
        running_server() as server,
        server.controlled_by(POLICY) as sync,
        edge(server) as client,
        client.acquire(WORK, key_sha256=KEY, account=AccountNeeds(), label="req-9") as work,
        StateReader(server.target) as reader,
    ):
        state = await reader.state()
        leases = await reader.leases(account_id="acc_1", page_size=1)
        more = await reader.leases(account_id="acc_1", page_token=leases.next_page_token)
        sessions = await reader.sessions()
        accounts = await reader.accounts()
        resources = await reader.resources(name_prefix="accounts/")
        watched = await anext(aiter(reader.watch()))

        streams = state.resource("accounts/acc_1/streams")
        assert streams is not None
        assert (streams.held, streams.limit) == (1, 2)
        assert state.policy_version == sync.applied_version
        assert state.epoch == client.epoch
        assert watched.epoch == client.epoch
        assert leases.items[0].request_id.startswith("req-9.")
        assert {lease.resource for lease in (*leases.items, *more.items)} == set(work.resources)
        assert [(s.instance, s.role, s.leases) for s in sessions.items] == [("edge-1", "edge", 3)]
        assert (accounts.items[0].status, accounts.items[0].streams) == (AccountStatus.ACTIVE, 1)
        assert {r.name for r in resources.items} >= {"accounts/acc_1/streams"}


async def test_reading_a_server_that_is_away_is_told_as_such():
    async with StateReader("127.0.0.1:1", call_timeout=0.3) as reader:
        with pytest.raises(AdmissionUnavailable):
            await reader.state()
