"""The process around the ledger: tokens, health, reflection, metrics, drain, restarts, settings."""

import asyncio
import urllib.request

import grpc
import pytest
from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1 import control_service_pb2 as control_pb
from admission.v1 import state_service_pb2 as state_pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from admission_server.server import ADMISSION, CONTROL, STATE, AdmissionServer
from admission_server.settings import AdmissionSettings
from service_runtime.process import StartupError
from service_runtime.settings import SettingsError
from tests.admission_server.running import (
    WITHIN,
    Running,
    acquire_of,
    eventually,
    limit,
    metadata,
    running_server,
    settings_in,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(running: Running, service: str) -> object:
    stub = health_pb2_grpc.HealthStub(running.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_the_server_is_healthy_at_once_and_admission_after_the_first_policy(running):
    before = [await health(running, ""), await health(running, ADMISSION)]
    await running.policy()
    after = [await health(running, ""), await health(running, ADMISSION)]

    assert before == [SERVING, NOT_SERVING]
    assert after == [SERVING, SERVING]


async def test_reflection_lists_the_services(running):
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answer = await call.read()
    call.cancel()

    services = {service.name for service in answer.list_services_response.service}
    assert {ADMISSION, CONTROL, STATE} <= services


@pytest.mark.parametrize(
    ("call_metadata", "code"),
    [
        ((), grpc.StatusCode.UNAUTHENTICATED),
        ((("authorization", "Bearer nobody-knows-this"),), grpc.StatusCode.UNAUTHENTICATED),
        (metadata("reader"), grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_leases_need_a_role_token(running, call_metadata, code):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.unary.OpenSession(session_pb.OpenSessionRequest(instance="x"), metadata=call_metadata)

    assert caught.value.code() is code


@pytest.mark.parametrize("role", ["edge", "worker", "reader"])
async def test_the_policy_needs_the_control_token(running, role):
    call = running.control.Sync(metadata=metadata(role))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()

    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_closed_state_needs_any_token(tmp_path):
    async with running_server(tmp_path, open_state=False) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.state.GetState(state_pb.GetStateRequest())
        state = await running.state.GetState(state_pb.GetStateRequest(), metadata=metadata("reader"))

    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert state.epoch


async def test_metrics_count_decisions_without_ids(tmp_path, free_port):
    async with running_server(tmp_path, metrics_port=free_port) as running:
        await running.policy(limits=[limit("lanes/proxy_http", 1)])
        async with running.holder() as holder:
            await holder.acquire("lanes/proxy_http")
            await holder.acquire("lanes/proxy_http")
            text = await asyncio.to_thread(_scrape, free_port)

    assert 'decisions_total{outcome="granted",reason="",resource="lanes/proxy_http"} 1.0' in text
    assert 'decisions_total{outcome="denied",reason="lane_full",resource="lanes/proxy_http"} 1.0' in text
    assert 'seats_held{resource="lanes/proxy_http"} 1.0' in text
    assert "sluicegate_admission_sessions 1.0" in text
    assert holder.session_id not in text


async def test_a_stop_answers_waiters_and_closes_streams(tmp_path):
    async with running_server(tmp_path) as running:
        await running.policy(limits=[limit("stages/response_create", 1, max_wait=30.0)])
        async with running.holder() as holder:
            await holder.acquire("stages/response_create")
            await holder.say(acquires=[acquire_of("stages/response_create")])
            await eventually(lambda: running.server.ledger.waiting == 1)
            stopping = asyncio.ensure_future(running.server.stop())
            answer = await holder.answer()
            error = await holder.over()
            async with asyncio.timeout(WITHIN):
                await stopping
        running.server.stop = _nothing  # type: ignore[method-assign]  # it is over already

    assert answer.denial.reason == pb.DENIAL_REASON_DRAINING
    assert answer.denial.retry_after.seconds >= 1
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stop_waits_for_nobody_who_is_connected(tmp_path):
    async with running_server(tmp_path, drain_timeout=60.0) as running:
        async with running.controller() as controller, running.holder() as holder:
            await controller.snapshot(1)
            watch = running.state.WatchState(state_pb.WatchStateRequest())
            await watch.read()
            async with asyncio.timeout(WITHIN):
                await running.server.stop()
            told = await holder.over()
            with pytest.raises(grpc.aio.AioRpcError) as controller_told:
                await controller.hear()
            watch.cancel()
        running.server.stop = _nothing  # type: ignore[method-assign]  # it is over already

    assert told.code() is grpc.StatusCode.UNAVAILABLE
    assert controller_told.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_that_is_very_late_refuses_acquires_but_no_heartbeat_and_no_release(running):
    await running.policy()
    async with running.holder() as holder:
        granted = await holder.acquire("lanes/proxy_http")
        running.server._lag.current = 1e9
        await eventually(lambda: running.server.ledger.overloaded)
        refused = await holder.acquire("lanes/proxy_http")
        beat = await holder.beat()
        await holder.release(*granted.grant.lease_ids)
        await eventually(lambda: running.held("lanes/proxy_http") == 0)

    assert refused.denial.reason == pb.DENIAL_REASON_SERVER_OVERLOADED
    assert beat.heartbeat_ack.sequence == 1


async def test_too_large_a_message_ends_its_own_stream_only(running):
    await running.policy()
    async with running.holder("edge-1/0") as loud, running.holder("edge-2/0") as quiet:
        await loud.say(releases=[pb.Release(request_id="x" * (17 * 1024 * 1024))])
        error = await loud.over()
        answer = await quiet.acquire("lanes/proxy_http")

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answer.HasField("grant")


async def test_a_taken_port_is_an_error_that_names_it(running, tmp_path):
    folder = tmp_path / "second"
    folder.mkdir()
    second = AdmissionServer(settings_in(folder, port=running.server.port))

    with pytest.raises(StartupError, match=str(running.server.port)):
        await second.start()


async def test_a_state_folder_is_used_by_one_server_at_a_time(running, tmp_path):
    second = AdmissionServer(settings_in(tmp_path))

    with pytest.raises(StartupError, match="in use"):
        await second.start()


def test_settings_without_tokens_are_refused_by_name(monkeypatch):
    monkeypatch.delenv("SLUICEGATE_ADMISSION_TOKENS_FILE", raising=False)

    with pytest.raises(SettingsError, match="SLUICEGATE_ADMISSION_TOKENS_FILE"):
        AdmissionSettings.from_environment()


def test_a_heartbeat_must_fit_twice_into_the_ttl(monkeypatch):
    monkeypatch.setenv("SLUICEGATE_ADMISSION_TOKENS_FILE", "tokens")
    monkeypatch.setenv("SLUICEGATE_ADMISSION_HEARTBEAT", "10")

    with pytest.raises(SettingsError, match="HEARTBEAT"):
        AdmissionSettings.from_environment()


async def test_keys_are_authenticated_by_their_hash(running):
    sha = bytes(range(32))
    await running.policy(keys=[control_pb.KeyPolicy(key_id="k1", key_sha256=sha, models=["gpt-5"])])
    async with running.holder() as holder:
        known = await holder.acquire("lanes/proxy_http", key_sha256=sha)
        unknown = await holder.acquire("lanes/proxy_http", key_sha256=bytes(32))
        barred = await holder.acquire("stages/response_create", key_sha256=sha, account=pb.AccountNeeds(model="gpt-4"))

    assert known.grant.key_id == "k1"
    assert unknown.denial.reason == pb.DENIAL_REASON_KEY_UNKNOWN
    assert not unknown.denial.HasField("retry_after")
    assert barred.denial.reason == pb.DENIAL_REASON_MODEL_NOT_ALLOWED


def _scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WITHIN) as response:
        return str(response.read(), "utf-8")


async def _nothing() -> None:
    return None
