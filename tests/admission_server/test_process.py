"""The real process: it starts on its environment, survives a kill with its memory of who, and stops in order."""

import asyncio
import contextlib
import os
import signal
import sys

import grpc
import pytest
from admission.v1 import state_service_pb2 as state_pb
from admission.v1 import state_service_pb2_grpc as state_grpc

from tests.admission_server.running import TOKENS, WITHIN


@pytest.fixture
def environment(tmp_path, free_port):
    tokens = tmp_path / "tokens"
    tokens.write_text("\n".join(f"{role} {token}" for role, token in TOKENS.items()), encoding="utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
    return clean | {
        "SLUICEGATE_ADMISSION_PORT": str(free_port),
        "SLUICEGATE_ADMISSION_METRICS_PORT": "0",
        "SLUICEGATE_ADMISSION_STATE_DIR": str(tmp_path / "state"),
        "SLUICEGATE_ADMISSION_TOKENS_FILE": str(tokens),
    }


@contextlib.asynccontextmanager
async def process(environment):
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "admission_server", env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def state(environment):
    target = f"127.0.0.1:{environment['SLUICEGATE_ADMISSION_PORT']}"
    async with grpc.aio.insecure_channel(target) as channel:
        return await state_grpc.StateServiceStub(channel).GetState(
            state_pb.GetStateRequest(), wait_for_ready=True, timeout=WITHIN
        )


async def test_a_killed_server_comes_back_as_a_new_epoch_and_stops_in_order(environment):
    async with process(environment) as first:
        before = await state(environment)
        first.kill()
        await first.wait()
    async with process(environment) as second:
        after = await state(environment)
        second.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WITHIN):
            status = await second.wait()

    assert after.epoch == before.epoch + 1
    assert status == 0


async def test_without_a_tokens_file_it_does_not_start_and_says_what_is_missing(environment):
    del environment["SLUICEGATE_ADMISSION_TOKENS_FILE"]
    async with process(environment) as started:
        async with asyncio.timeout(WITHIN):
            _, errors = await started.communicate()

    assert started.returncode == 2
    assert b"SLUICEGATE_ADMISSION_TOKENS_FILE" in errors


async def test_a_taken_port_ends_it_with_a_message(environment):
    async with process(environment):
        await state(environment)
        second = environment | {"SLUICEGATE_ADMISSION_STATE_DIR": environment["SLUICEGATE_ADMISSION_STATE_DIR"] + "2"}
        async with process(second) as started, asyncio.timeout(WITHIN):
            _, errors = await started.communicate()

    assert started.returncode == 1
    assert environment["SLUICEGATE_ADMISSION_PORT"].encode() in errors
