"""Bytes that are no message are the caller's mistake: told as such, to nobody's alarm, and the server goes on."""

import asyncio
import logging

import grpc
import grpc.aio
import pytest
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1 import state_service_pb2 as state_pb
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.admission_server.running import WITHIN, metadata

UNARY = [
    "/admission.v1.StateService/GetState",
    "/admission.v1.StateService/ListLeases",
    "/admission.v1.AdmissionService/OpenSession",
    "/admission.v1.AdmissionService/Acquire",
    "/admission.v1.ControlService/ForgetSession",
    "/grpc.health.v1.Health/Check",
]
WATCHING = ["/admission.v1.StateService/WatchState", "/grpc.health.v1.Health/Watch"]
STREAMS = [
    "/admission.v1.AdmissionService/Session",
    "/admission.v1.ControlService/Sync",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
BAD = {"cut off": b"\x0a\x7f", "no fields": b"\xff" * 30, "a length without end": b"\x0a\xff\xff\xff\xff\x0f"}


async def error_of(call):
    async with asyncio.timeout(WITHIN):
        try:
            while isinstance(await call.read(), bytes):
                pass
            await call
        except grpc.aio.AioRpcError as error:
            return error
    raise AssertionError("the call was answered")


@pytest.mark.parametrize("content", BAD)
@pytest.mark.parametrize("method", UNARY)
async def test_a_request_that_is_no_message_is_an_invalid_argument(running, caplog, method, content):
    caplog.set_level(logging.INFO)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await running.channel.unary_unary(method)(BAD[content], metadata=metadata("control"), timeout=WITHIN)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "a message cannot be read"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("method", WATCHING)
async def test_nothing_is_watched_for_it_either(running, caplog, method):
    error = await error_of(running.channel.unary_stream(method)(BAD["no fields"], timeout=WITHIN))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("method", STREAMS)
async def test_a_stream_that_begins_with_it_ends(running, caplog, method):
    call = running.channel.stream_stream(method)(metadata=metadata("control"), timeout=WITHIN)
    await call.write(BAD["no fields"])
    error = await error_of(call)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_in_the_middle_of_a_stream_it_ends_this_stream_only(running, caplog):
    await running.policy()
    raw = running.channel.stream_stream("/admission.v1.AdmissionService/Session")(metadata=metadata("edge"))
    hello = session_pb.Hello(instance="edge-2/0", session_id="session_2")
    async with running.holder("edge-1/0") as quiet:
        await raw.write(session_pb.SessionRequest(hello=hello).SerializeToString())
        await raw.read()
        await raw.write(BAD["no fields"])
        error = await error_of(raw)
        answer = await quiet.acquire("lanes/proxy_http")

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.HasField("grant")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_what_is_a_message_is_answered_as_before(running):
    state = await running.state.GetState(state_pb.GetStateRequest(), timeout=WITHIN)
    health = await running.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest(), timeout=WITHIN)
    asked = reflection_pb2_grpc.ServerReflectionStub(running.channel).ServerReflectionInfo(timeout=WITHIN)
    await asked.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = await asked.read()

    assert state.epoch
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert len(listed.list_services_response.service) == 5


async def test_a_method_that_does_not_exist_is_unimplemented(running):
    for method in ("/admission.v1.StateService/Nothing", "/nothing", "nothing", "/admission.v1.StateService/../x"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await running.channel.unary_unary(method)(b"", timeout=WITHIN)

        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED, method
