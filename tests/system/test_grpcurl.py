"""Operators ask the admission server with grpcurl: no files, no token for what is read only, a token for leases."""

import asyncio
import json
import re

import pytest

from demo.grpcurl import show_call
from demo.reflection import NoAnswer, ask
from tests.system.running import eventually


async def run(grpcurl, *arguments):
    process = await asyncio.create_subprocess_exec(
        grpcurl, "-plaintext", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def test_reflection_lists_the_services(system, grpcurl):
    status, output, _ = await run(grpcurl, system.admission_target, "list")

    assert status == 0
    assert {
        "admission.v1.AdmissionService",
        "admission.v1.ControlService",
        "admission.v1.StateService",
        "grpc.health.v1.Health",
    } <= set(output.split())


async def test_the_state_shows_lanes_stages_sessions_and_leases_of_an_open_stream(system, grpcurl):
    async with system.open_turn(simulate="slow=0.5,events=40"):
        await eventually(lambda: is_streaming(system), what="the stream has begun")
        _, state, _ = await run(grpcurl, system.admission_target, "admission.v1.StateService/GetState")
        _, leases, _ = await run(grpcurl, system.admission_target, "admission.v1.StateService/ListLeases")
        _, sessions, _ = await run(grpcurl, system.admission_target, "admission.v1.StateService/ListSessions")

    resources = {item["name"]: item for item in json.loads(state)["resources"]}
    assert resources["lanes/proxy_http"]["held"] == 1
    assert resources["lanes/proxy_http"]["limit"] == 200
    assert "stages/response_create" in resources
    held = {item["resource"]: item for item in json.loads(leases)["leases"]}
    assert {"lanes/proxy_http", f"accounts/{system.account_id}/streams"} <= set(held)
    assert held[f"accounts/{system.account_id}/streams"]["account_id"] == system.account_id
    assert held["lanes/proxy_http"]["age"].endswith("s")
    assert held["lanes/proxy_http"]["session_id"] in {item["session_id"] for item in json.loads(sessions)["sessions"]}


async def test_an_acquire_without_a_role_token_is_refused(system, grpcurl):
    request = json.dumps({"session_id": "nobody_1", "acquire": {"request_id": "1", "resources": ["lanes/proxy_http"]}})

    status, _, errors = await run(
        grpcurl, "-d", request, system.admission_target, "admission.v1.AdmissionService/Acquire"
    )

    assert status != 0
    assert "Unauthenticated" in errors


async def test_the_wrong_role_is_refused(system, grpcurl):
    reader = f"authorization: Bearer {system.role_token('reader')}"
    request = json.dumps({"session_id": "nobody_1", "acquire": {"request_id": "1", "resources": ["lanes/proxy_http"]}})

    _, _, errors = await run(
        grpcurl, "-H", reader, "-d", request, system.admission_target, "admission.v1.AdmissionService/Acquire"
    )

    assert "PermissionDenied" in errors


async def test_a_token_opens_a_session_by_hand(system, grpcurl):
    worker = f"authorization: Bearer {system.role_token('worker')}"
    target = system.admission_target

    _, opened, errors = await run(
        grpcurl, "-H", worker, "-d", '{"instance":"by-hand"}', target, "admission.v1.AdmissionService/OpenSession"
    )
    assert opened, errors
    session = json.loads(opened)["session_id"]
    acquire = json.dumps({"session_id": session, "acquire": {"request_id": "1", "resources": ["lanes/proxy_http"]}})
    _, answer, errors = await run(grpcurl, "-H", worker, "-d", acquire, target, "admission.v1.AdmissionService/Acquire")
    assert answer, errors
    _, closed, errors = await run(
        grpcurl,
        "-H",
        worker,
        "-d",
        json.dumps({"session_id": session}),
        target,
        "admission.v1.AdmissionService/CloseSession",
    )

    assert len(json.loads(answer)["answer"]["grant"]["lease_ids"]) == 1
    assert json.loads(closed)["ended"] == 1, errors


# --- The demo shows the same on a machine without grpcurl.

MOMENT = re.compile(r'"(uptime|age|expires_in)": "[0-9.]+s"')


def at_no_moment(printed):
    """What was printed, without the times that differ from one call to the next."""
    return MOMENT.sub(r'"\1": "…"', printed)


@pytest.mark.parametrize("method", ["GetState", "ListLeases", "ListSessions", "ListResources"])
async def test_what_is_shown_without_grpcurl_is_what_it_prints_to_the_letter(system, grpcurl, method):
    async with system.open_turn(simulate="slow=0.5,events=40"):
        await eventually(lambda: is_streaming(system), what="the stream has begun")
        shown = [
            await show_call(system.admission_target, f"admission.v1.StateService/{method}", grpcurl=path)
            for path in (grpcurl, None)
        ]

    command = f"$ grpcurl -plaintext {system.admission_target} admission.v1.StateService/{method}\n"
    assert at_no_moment(shown[0]) == at_no_moment(shown[1])
    assert shown[0].startswith(command)
    assert "lanes/proxy_http" in shown[0] or method == "ListSessions"
    assert MOMENT.search(shown[0]) or method == "ListResources"


async def test_accounts_are_shown_with_the_same_values(system, grpcurl):
    method = "admission.v1.StateService/ListAccounts"
    _, printed, _ = await run(grpcurl, system.admission_target, method)

    assert json.loads(await ask(system.admission_target, method)) == json.loads(printed)


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("admission.v1.StateService/Nothing", "has no admission.v1.StateService/Nothing"),
        ("admission.v1.NoService/Nothing", "has no admission.v1.NoService/Nothing"),
        ("admission.v1.AdmissionService/CloseSession", "UNAUTHENTICATED"),
    ],
)
async def test_a_call_that_cannot_be_made_is_told(system, method, told):
    with pytest.raises(NoAnswer, match=told):
        await ask(system.admission_target, method)


async def test_nobody_there_is_told():
    with pytest.raises(NoAnswer, match="UNAVAILABLE"):
        await ask("127.0.0.1:1", "admission.v1.StateService/GetState")


async def is_streaming(system):
    return await system.held(f"accounts/{system.account_id}/streams") == 1 and not await system.held(
        "stages/response_create"
    )
