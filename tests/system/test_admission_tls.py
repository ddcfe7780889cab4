"""Who gets to talk to the admission server: certificates, role tokens, and what may be called with which."""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1 import admission_service_pb2_grpc as session_grpc
from admission.v1 import control_service_pb2 as control_pb
from admission.v1 import control_service_pb2_grpc as control_grpc
from admission.v1 import state_service_pb2 as state_pb
from admission.v1 import state_service_pb2_grpc as state_grpc

from demo.ports import Ports
from demo.services import SystemOptions
from service_runtime.tls import TlsFiles, channel_credentials
from tests.admission_server.running import TOKENS, metadata, running_server
from tests.system.certificates import Authority
from tests.system.running import RunningSystem

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED


async def status_of(call):
    """Returns how a call ends that nobody writes to, within a deadline."""
    try:
        if hasattr(call, "read"):
            await call.read()
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def ask_state(target, files):
    """Asks for the state over a new channel and returns the status of the call."""
    credentials = channel_credentials(files)
    channel = grpc.aio.insecure_channel(target) if credentials is None else grpc.aio.secure_channel(target, credentials)
    async with channel:
        return await status_of(state_grpc.StateServiceStub(channel).GetState(state_pb.GetStateRequest(), timeout=5))


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


def tls_settings(files):
    return {"tls_certificate": files.certificate, "tls_key": files.key, "tls_authority": files.authority}


# --- TLS: the server proves itself.


async def test_a_server_certificate_of_the_right_authority_is_believed(tmp_path, authority):
    server = replace(authority.issue("server"), authority=None)
    async with running_server(tmp_path, **tls_settings(server)) as running:
        status = await ask_state(running.target, TlsFiles(authority=authority.file))

    assert status is grpc.StatusCode.OK


async def test_a_server_certificate_of_another_authority_is_not_believed(tmp_path, authority):
    server = replace(authority.issue("server"), authority=None)
    other = Authority(tmp_path, "other")
    async with running_server(tmp_path, **tls_settings(server)) as running:
        status = await ask_state(running.target, TlsFiles(authority=other.file))

    assert status is UNAVAILABLE


async def test_an_expired_server_certificate_is_not_believed(tmp_path, authority):
    server = replace(authority.issue("server", expired=True), authority=None)
    async with running_server(tmp_path, **tls_settings(server)) as running:
        status = await ask_state(running.target, TlsFiles(authority=authority.file))

    assert status is UNAVAILABLE


async def test_plaintext_does_not_get_in_where_tls_is_spoken(tmp_path, authority):
    server = replace(authority.issue("server"), authority=None)
    async with running_server(tmp_path, **tls_settings(server)) as running:
        status = await ask_state(running.target, TlsFiles())

    assert status is UNAVAILABLE


async def test_tls_does_not_fall_back_to_plaintext(tmp_path, authority):
    async with running_server(tmp_path) as running:
        status = await ask_state(running.target, TlsFiles(authority=authority.file))

    assert status is UNAVAILABLE


# --- Mutual TLS: the client proves itself as well.


async def test_a_client_certificate_of_the_right_authority_gets_in(tmp_path, authority):
    async with running_server(tmp_path, **tls_settings(authority.issue("server"))) as running:
        status = await ask_state(running.target, authority.issue("client"))

    assert status is grpc.StatusCode.OK


async def test_a_client_without_a_certificate_does_not_get_in(tmp_path, authority):
    async with running_server(tmp_path, **tls_settings(authority.issue("server"))) as running:
        status = await ask_state(running.target, TlsFiles(authority=authority.file))

    assert status is UNAVAILABLE


async def test_a_client_certificate_of_another_authority_does_not_get_in(tmp_path, authority):
    stranger = replace(Authority(tmp_path, "other").issue("stranger"), authority=authority.file)
    async with running_server(tmp_path, **tls_settings(authority.issue("server"))) as running:
        status = await ask_state(running.target, stranger)

    assert status is UNAVAILABLE


async def test_an_expired_client_certificate_does_not_get_in(tmp_path, authority):
    expired = authority.issue("expired", expired=True)
    async with running_server(tmp_path, **tls_settings(authority.issue("server"))) as running:
        status = await ask_state(running.target, expired)

    assert status is UNAVAILABLE


# --- Tokens and roles: what a certificate does not say.

SESSION = "Session"
SYNC = "Sync"
UNARY = ("Acquire", "Renew", "Release")


def call_of(channel, name, with_metadata):
    if name == SYNC:
        return control_grpc.ControlServiceStub(channel).Sync(metadata=with_metadata, timeout=5)
    if name == "ForgetSession":
        request = control_pb.ForgetSessionRequest()
        return control_grpc.ControlServiceStub(channel).ForgetSession(request, metadata=with_metadata, timeout=5)
    stub = session_grpc.AdmissionServiceStub(channel)
    if name == SESSION:
        return stub.Session(metadata=with_metadata, timeout=5)
    return getattr(stub, name)(getattr(session_pb, f"{name}Request")(), metadata=with_metadata, timeout=5)


def names_of(service):
    return [method.name for method in service.methods]


HOLDING = names_of(session_pb.DESCRIPTOR.services_by_name["AdmissionService"])
CONTROLLING = names_of(control_pb.DESCRIPTOR.services_by_name["ControlService"])
READING = names_of(state_pb.DESCRIPTOR.services_by_name["StateService"])


@pytest.mark.parametrize("name", HOLDING + CONTROLLING)
@pytest.mark.parametrize(
    "given",
    [
        (),
        (("authorization", "Bearer not-a-token-of-ours"),),
        (("authorization", "Bearer "),),
        (("authorization", TOKENS["control"]),),
        (("authorization", f"Basic {TOKENS['control']}"),),
        (("authorization", f"Bearer {TOKENS['control']}x"),),
    ],
)
async def test_without_a_valid_token_no_call_is_let_in(tmp_path, name, given):
    async with running_server(tmp_path) as running:
        status = await status_of(call_of(running.channel, name, given))

    assert status is UNAUTHENTICATED


@pytest.mark.parametrize(
    ("role", "name"),
    [*(("reader", name) for name in HOLDING), *((r, n) for r in ("edge", "worker", "reader") for n in CONTROLLING)],
)
async def test_a_role_may_only_call_what_is_for_it(tmp_path, role, name):
    async with running_server(tmp_path) as running:
        status = await status_of(call_of(running.channel, name, metadata(role)))

    assert status is PERMISSION_DENIED


@pytest.mark.parametrize("name", READING)
async def test_a_closed_state_needs_a_token(tmp_path, name):
    async with running_server(tmp_path, open_state=False) as running:
        stub = state_grpc.StateServiceStub(running.channel)
        request = getattr(state_pb, f"{name}Request")()
        without = await status_of(getattr(stub, name)(request, timeout=5))
        call = getattr(stub, name)(request, metadata=metadata("reader"), timeout=5)
        if hasattr(call, "read"):
            allowed = isinstance(await call.read(), state_pb.WatchStateResponse)
            call.cancel()
        else:
            allowed = await status_of(call) is grpc.StatusCode.OK

    assert without is UNAUTHENTICATED
    assert allowed


# --- At start.


def start(module, **variables):
    """Runs a service that cannot start and returns its exit status and its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
    done = subprocess.run(
        [sys.executable, "-m", module],
        env={**environment, **variables},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode()


async def test_an_address_that_others_can_reach_is_not_served_without_tokens(tmp_path):
    status, output = start(
        "admission_server",
        SLUICEGATE_ADMISSION_HOST="0.0.0.0",
        SLUICEGATE_ADMISSION_PORT="0",
        SLUICEGATE_ADMISSION_METRICS_PORT="0",
        SLUICEGATE_ADMISSION_STATE_DIR=str(tmp_path),
    )

    assert status == 2
    assert "SLUICEGATE_ADMISSION_TOKENS_FILE" in output


@pytest.mark.parametrize(
    ("module", "prefix", "variables"),
    [
        ("admission_server", "SLUICEGATE_ADMISSION_TLS", {"SLUICEGATE_ADMISSION_TOKENS_FILE": "{folder}/tokens"}),
        ("edge_proxy", "SLUICEGATE_EDGE_ADMISSION_TLS", {"SLUICEGATE_EDGE_ADMISSION_TOKEN": "t"}),
        ("control_api", "SLUICEGATE_CONTROL_ADMISSION_TLS", {"SLUICEGATE_CONTROL_ADMISSION_TOKEN": "t"}),
    ],
)
async def test_files_that_are_no_certificates_are_told_at_start(tmp_path, authority, module, prefix, variables):
    (tmp_path / "tokens").write_text(f"edge {TOKENS['edge']}\n")
    (tmp_path / "nonsense").write_text("not a certificate")
    right = authority.issue("right")
    known = {name: value.format(folder=tmp_path) for name, value in variables.items()}
    service = prefix.split("_TLS")[0].removesuffix("_ADMISSION") if module != "admission_server" else prefix[:-4]
    known |= {f"{service}_PORT": "0", f"{service}_METRICS_PORT": "0"}
    known["SLUICEGATE_CONTROL_DATA_DIR"] = known["SLUICEGATE_ADMISSION_STATE_DIR"] = str(tmp_path / "state")
    bad_key = start(
        module,
        **known,
        **{f"{prefix}_CERTIFICATE": str(right.certificate), f"{prefix}_KEY": str(tmp_path / "nonsense")},
    )
    no_file = start(
        module,
        **known,
        **{f"{prefix}_CERTIFICATE": str(right.certificate), f"{prefix}_KEY": str(tmp_path / "nowhere")},
    )

    assert (bad_key[0], no_file[0]) == (1, 1)
    assert "nonsense" in bad_key[1]
    assert "Traceback" not in bad_key[1] + no_file[1]


# --- The whole system over mutual TLS.


@pytest_asyncio.fixture(loop_scope="session")
async def tls_system(tmp_path, authority):
    server, client = authority.issue("server"), authority.issue("client")
    ways = {"SLUICEGATE_ADMISSION_TLS": server}
    ways |= {f"SLUICEGATE_{service}_ADMISSION_TLS": client for service in ("EDGE", "CONTROL")}
    environment: dict[str, str] = {}
    for prefix, files in ways.items():
        environment |= {
            f"{prefix}_CERTIFICATE": str(files.certificate),
            f"{prefix}_KEY": str(files.key),
            f"{prefix}_AUTHORITY": str(files.authority),
        }
    options = SystemOptions(directory=tmp_path / "system", ports=Ports.free(), environment=environment)
    async with RunningSystem(options) as running:
        yield running


async def test_a_turn_is_served_when_all_speak_mutual_tls(tls_system, authority):
    answer = await tls_system.turn()
    refused = await asyncio.gather(
        ask_state(tls_system.admission_target, TlsFiles()),
        ask_state(tls_system.admission_target, TlsFiles(authority=authority.file)),
    )

    assert answer.status_code == 200
    assert list(refused) == [UNAVAILABLE, UNAVAILABLE]
