"""The unary calls over a real socket: the same semantics for holders of few leases."""

import asyncio
import shutil

import grpc
import pytest
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb

from tests.admission_server.running import acquire_of, eventually, metadata

EDGE = metadata("edge")


@pytest.fixture
async def session_id(running):
    await running.policy()
    opened = await running.unary.OpenSession(session_pb.OpenSessionRequest(instance="script-1"), metadata=EDGE)
    return opened.session_id


async def acquire(running, session_id, *resources, request_id="", **fields):
    request = session_pb.AcquireRequest(
        session_id=session_id, acquire=acquire_of(*resources, request_id=request_id, **fields)
    )
    return (await running.unary.Acquire(request, metadata=EDGE)).answer


async def beat(running, session_id, *lease_ids):
    request = session_pb.HeartbeatRequest(session_id=session_id, lease_ids=lease_ids)
    return await running.unary.Heartbeat(request, metadata=EDGE)


async def test_a_seat_is_granted_renewed_and_given_back(running, session_id):
    answer = await acquire(running, session_id, "lanes/proxy_http")
    renewed = await beat(running, session_id, *answer.grant.lease_ids)
    released = await running.unary.Release(
        session_pb.ReleaseRequest(session_id=session_id, releases=[pb.Release(lease_ids=answer.grant.lease_ids)]),
        metadata=EDGE,
    )

    assert renewed.ttl.seconds == 1
    assert not renewed.ended
    assert released.ended == 1
    assert running.held("lanes/proxy_http") == 0


async def test_a_call_that_timed_out_is_repeated_with_its_request_id(running, session_id):
    held = [await acquire(running, session_id, "stages/response_create") for _ in range(2)]
    request = session_pb.AcquireRequest(
        session_id=session_id, acquire=acquire_of("stages/response_create", request_id="slow")
    )
    with pytest.raises(grpc.aio.AioRpcError):
        await running.unary.Acquire(request, metadata=EDGE, timeout=0.2)
    again = asyncio.ensure_future(running.unary.Acquire(request, metadata=EDGE))
    await running.unary.Release(
        session_pb.ReleaseRequest(session_id=session_id, releases=[pb.Release(lease_ids=held[0].grant.lease_ids)]),
        metadata=EDGE,
    )
    answer = (await again).answer

    assert answer.HasField("grant")
    assert running.held("stages/response_create") == 2


async def test_what_two_heartbeats_do_not_name_is_taken_back(running, session_id):
    await acquire(running, session_id, "lanes/proxy_http")
    first = await beat(running, session_id)
    second = await beat(running, session_id)

    assert not first.ended
    assert [ended.reason for ended in second.ended] == [session_pb.END_REASON_LEAKED]
    assert running.held("lanes/proxy_http") == 0


async def test_a_lease_that_the_server_does_not_know_is_named_back(running, session_id):
    response = await beat(running, session_id, 4711)

    assert [ended.lease_id for ended in response.ended] == [4711]


async def test_a_silent_session_ends(running, session_id):
    await acquire(running, session_id, "lanes/proxy_http")
    await eventually(lambda: session_id not in running.server.ledger.sessions)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await beat(running, session_id)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert running.held("lanes/proxy_http") == 0


async def test_closing_says_how_many_leases_ended_and_closing_twice_is_fine(running, session_id):
    await acquire(running, session_id, "lanes/proxy_http")
    request = session_pb.CloseSessionRequest(session_id=session_id)
    first = await running.unary.CloseSession(request, metadata=EDGE)
    second = await running.unary.CloseSession(request, metadata=EDGE)

    assert (first.ended, second.ended) == (1, 0)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"resources": []}, "resources"),
        ({"resources": ["lanes/a", "lanes/a"]}, "resources[1]"),
        ({"resources": ["lanes/proxy_http"], "request_id": ""}, "request_id"),
        ({"resources": ["lanes/proxy_http"], "key_sha256": b"1"}, "key_sha256"),
        ({"resources": ["lanes/proxy_http"], "peer": "p" * 129}, "peer"),
        ({"resources": ["lanes/nowhere"]}, "resources[0]"),
        ({"resources": ["lanes/proxy_http"], "account": {"affinity_keys": ["k"] * 5}}, "account.affinity_keys"),
        ({"resources": ["lanes/proxy_http"], "account": {"model": "m" * 129}}, "account.model"),
        ({"resources": ["lanes/proxy_http"], "account": {"model": "\u20ac" * 43}}, "account.model"),
        ({"resources": ["lanes/" + "a" * 300]}, "resources[0]"),
        ({"resources": ["lanes/a", "lanes/" + "a" * 300]}, "resources[1]"),
        (
            {"resources": ["lanes/proxy_http"], "account": {"avoid_account_ids": ["one", "a" * 129]}},
            "account.avoid_account_ids[1]",
        ),
    ],
)
async def test_a_malformed_acquire_is_an_error_that_names_the_field(running, session_id, fields, field):
    request = session_pb.AcquireRequest(session_id=session_id, acquire=pb.Acquire(**({"request_id": "r1"} | fields)))

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.unary.Acquire(request, metadata=EDGE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in str(caught.value.details())


async def test_a_token_may_use_sessions_of_its_own_role_only(running, session_id):
    request = session_pb.AcquireRequest(session_id=session_id, acquire=acquire_of("lanes/proxy_http"))

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.unary.Acquire(request, metadata=metadata("worker"))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_session_with_a_stream_takes_no_unary_calls(running):
    await running.policy()
    async with running.holder() as holder:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await acquire(running, holder.session_id, "lanes/proxy_http")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_stream_may_not_take_over_a_session_of_unary_calls(running, session_id):
    answer = await acquire(running, session_id, "lanes/proxy_http")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with running.holder("script-1", session_id=session_id) as holder:
            await holder.beat()
    renewed = await beat(running, session_id, *answer.grant.lease_ids)
    again = await acquire(running, session_id, "lanes/proxy_http")

    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert not renewed.ended
    assert again.HasField("grant")


async def test_unary_calls_may_not_take_over_a_session_with_a_stream(running):
    await running.policy()
    async with running.holder() as holder:
        request = session_pb.OpenSessionRequest(instance="edge-1/0", session_id=holder.session_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.unary.OpenSession(request, metadata=EDGE)
        beaten = await holder.beat()

    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert beaten.HasField("heartbeat_ack")


async def test_a_session_that_cannot_be_written_down_is_not_opened(running, tmp_path):
    shutil.rmtree(tmp_path / "state")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.unary.OpenSession(session_pb.OpenSessionRequest(instance="script-1"), metadata=EDGE)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not running.server.ledger.sessions
