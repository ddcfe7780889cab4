"""`StateService` over a real socket: what people and monitoring see."""

import asyncio

import grpc
import pytest
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1 import control_service_pb2 as control_pb
from admission.v1 import state_service_pb2 as state_pb
from google.protobuf.duration_pb2 import Duration

from admission_server.state_servicer import WATCH_EVERY, StateServicer
from service_runtime.version import VERSION
from tests.admission_server.running import TOKENS, WITHIN, account


async def test_the_state_at_a_glance(running):
    await running.policy(version=9, accounts=[account("acc_1")])
    async with running.holder() as holder:
        await holder.acquire("lanes/proxy_http")
        state = await running.state.GetState(state_pb.GetStateRequest())

    assert (state.server_version, state.policy_version, state.sessions) == (VERSION, 9, 1)
    assert state.epoch == running.server.ledger.epoch
    assert [resource.name for resource in state.resources] == [
        "lanes/dashboard", "lanes/proxy_http", "stages/response_create",
        "accounts/acc_1/response_creates", "accounts/acc_1/streams",
    ]  # fmt: skip
    lane = state.resources[1]
    assert (lane.limit, lane.held, lane.waiting, lane.overdraft) == (2, 1, 0, 0)


async def test_leases_are_listed_page_by_page_and_filtered(running):
    await running.policy(limits=())
    async with running.controller(term=2) as controller, running.holder() as one, running.holder("edge-2/0") as two:
        await controller.snapshot(2, limits=[control_pb.ResourceSettings(name="lanes/a")])
        for i in range(5):
            await one.acquire("lanes/a", request_id=f"turn-{i}")
        await two.acquire("lanes/a")
        pages: list[list[str]] = []
        token = ""
        while token or not pages:
            request = state_pb.ListLeasesRequest(page_size=2, page_token=token, session_id=one.session_id)
            page = await running.state.ListLeases(request)
            pages.append([lease.request_id for lease in page.leases])
            token = page.next_page_token
        everything = await running.state.ListLeases(state_pb.ListLeasesRequest())
        nothing = await running.state.ListLeases(state_pb.ListLeasesRequest(resource="lanes/b"))

    assert pages == [["turn-0", "turn-1"], ["turn-2", "turn-3"], ["turn-4"]]
    assert len(everything.leases) == 6
    assert not nothing.leases


async def test_resources_sessions_and_accounts_are_listed(running):
    await running.policy(accounts=[account("acc_1"), account("acc_2", status=control_pb.ACCOUNT_STATUS_PAUSED)])
    async with running.holder():
        resources = await running.state.ListResources(state_pb.ListResourcesRequest(name_prefix="accounts/"))
        sessions = await running.state.ListSessions(state_pb.ListSessionsRequest())
        accounts = await running.state.ListAccounts(state_pb.ListAccountsRequest())

    assert len(resources.resources) == 4
    assert [(s.instance, s.role, s.connected) for s in sessions.sessions] == [("edge-1/0", "edge", True)]
    assert [(a.account_id, a.status, a.has_credential) for a in accounts.accounts] == [
        ("acc_1", control_pb.ACCOUNT_STATUS_ACTIVE, True), ("acc_2", control_pb.ACCOUNT_STATUS_PAUSED, True),
    ]  # fmt: skip


async def test_no_secret_is_shown(running):
    sha = bytes(range(32))
    await running.policy(accounts=[account("acc_1")], keys=[control_pb.KeyPolicy(key_id="k1", key_sha256=sha)])
    async with running.holder() as holder:
        await holder.acquire("accounts/-/streams", account=pb.AccountNeeds(), key_sha256=sha)
        shown = [
            await running.state.GetState(state_pb.GetStateRequest()),
            await running.state.ListResources(state_pb.ListResourcesRequest()),
            await running.state.ListSessions(state_pb.ListSessionsRequest()),
            await running.state.ListLeases(state_pb.ListLeasesRequest()),
            await running.state.ListAccounts(state_pb.ListAccountsRequest()),
        ]

    wire = b"".join(message.SerializeToString() for message in shown)
    assert b"secret-of-acc_1" not in wire
    assert sha not in wire
    assert not any(token.encode() in wire for token in TOKENS.values())


@pytest.mark.parametrize("fields", [{"page_size": -1}, {"page_token": "%%%"}, {"page_token": "MDAwMDAwMDAgIDU="}])
async def test_a_bad_page_is_an_error_that_names_the_field(running, fields):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.state.ListLeases(state_pb.ListLeasesRequest(**fields))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert next(iter(fields)) in str(caught.value.details())


async def test_a_watcher_is_told_of_changes_and_of_nothing_else(running):
    await running.policy()
    watch = running.state.WatchState(state_pb.WatchStateRequest())
    async with asyncio.timeout(WITHIN):
        first = await watch.read()
        async with running.holder() as holder:
            await holder.acquire("lanes/proxy_http")
            second = await watch.read()
    watch.cancel()

    def held(message):
        return {resource.name: resource.held for resource in message.state.resources}["lanes/proxy_http"]

    assert held(first) == 0
    assert held(second) == 1


async def test_a_server_that_is_late_refuses_queries(running):
    running.server._lag.current = 1e9

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.state.GetState(state_pb.GetStateRequest())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_age_that_a_holder_claims_does_not_make_leases_unlistable(running):
    await running.policy()
    claim = session_pb.HeldLease(lease_id=1, resource="lanes/proxy_http", age=Duration(seconds=2**63 - 1))
    async with running.holder(held=session_pb.LeaseList(leases=[claim])):
        listed = await running.state.ListLeases(state_pb.ListLeasesRequest())

    assert [lease.lease_id for lease in listed.leases] == [1]
    assert listed.leases[0].age.seconds > 366 * 86400


async def test_watchers_share_one_state_and_are_told_at_most_twice_a_second(running, monkeypatch):
    built = []
    build = StateServicer._state

    def count(servicer):
        built.append(servicer)
        return build(servicer)

    monkeypatch.setattr(StateServicer, "_state", count)
    await running.policy()
    watches = [running.state.WatchState(state_pb.WatchStateRequest()) for _ in range(20)]
    async with asyncio.timeout(WITHIN):
        first = [await watch.read() for watch in watches]
        started = asyncio.get_running_loop().time()
        async with running.holder():
            second = [await watch.read() for watch in watches]
    took = asyncio.get_running_loop().time() - started
    for watch in watches:
        watch.cancel()

    assert {message.state.sessions for message in first} == {0}
    assert {message.state.sessions for message in second} == {1}
    assert len(built) <= 3 + took / WATCH_EVERY


async def test_there_is_a_bound_on_watchers(running, monkeypatch):
    monkeypatch.setattr("admission_server.state_servicer.MOST_WATCHERS", 1)
    watch = running.state.WatchState(state_pb.WatchStateRequest())
    async with asyncio.timeout(WITHIN):
        await watch.read()
        refused = running.state.WatchState(state_pb.WatchStateRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await refused.read()
    watch.cancel()

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
