"""Secrets that are planted wherever one can come in do not come out: not in logs, metrics, state, answers or files.

Everything is searched for the last characters of each, so that a cut or quoted copy is found as well. The files that
are documented to hold a secret may hold theirs, and no other.
"""

import base64
import contextlib
import json
import os
import secrets
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest
import pytest_asyncio
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1 import admission_service_pb2_grpc as session_grpc
from admission.v1 import state_service_pb2 as state_pb
from google.protobuf import text_format
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from control_api.vault import Vault
from service_runtime.deployment_secrets import ROLES
from service_runtime.private_files import read_private
from tests.system.running import TURN, eventually

CODEX = "/backend-api/codex/responses"
SUFFIX = 20
SERVICES = ("admission_server", "control_api", "edge_proxy", "upstream_simulator")


def canary(name):
    return f"canary-{name}-{secrets.token_hex(16)}"


def jwt(name):
    """Something that looks like a sign-in of somebody."""
    part = base64.urlsafe_b64encode(json.dumps({"sub": name, "exp": 4_000_000_000}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{part}.{canary(name)}"


@dataclass
class Planted:
    """What was planted, and what came back meanwhile."""

    secrets: dict[str, str] = field(default_factory=dict)
    allowed: dict[str, set[str]] = field(default_factory=dict)
    """Names of secrets by the file, relative to the system's folder, that may hold them."""
    answers: list[bytes] = field(default_factory=list)

    def plant(self, name, value):
        self.secrets[name] = value
        return value

    def found_in(self, content):
        return {name for name, value in self.secrets.items() if value[-SUFFIX:].encode() in content}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def planted(system):
    planted = Planted()
    plant_deployment(planted, system)
    planted.plant("client key", system.key.key)
    planted.plant("prompt", canary("prompt"))
    await accounts_come_and_fail(planted, system)
    await clients_succeed_and_fail(planted, system)
    await tokens_are_refused_and_refreshed(planted, system)
    await roles_are_wrong(planted, system)
    plant_what_is_stored(planted, system)
    await eventually(system.nothing_is_held, what="every seat is back")
    return planted


def plant_deployment(planted, system):
    files = system.stack.secrets
    planted.plant("admin token", read_private(files.admin_token))
    for name in ("control", "operator"):
        planted.allowed[f"secrets/{name}/admin-token"] = {"admin token"}
    for role in ROLES:
        planted.plant(f"token of {role}", read_private(files.role_token(role)))
        planted.allowed[str(files.role_token(role).relative_to(files.directory.parent))] = {f"token of {role}"}
    planted.allowed["secrets/admission/tokens"] = {f"token of {role}" for role in ROLES}
    planted.plant("vault key", read_private(files.vault_key))
    planted.allowed["secrets/control/vault.key"] = {"vault key"}


async def accounts_come_and_fail(planted, system):
    """Imports, good and bad, in every way there is. The answers to bad ones must not repeat them."""
    made = await system.operator.simulate("POST", "/__simulate/accounts", {"kind": "chatgpt"})
    for name, value in made["auth_json"]["tokens"].items():
        if name.endswith("_token"):
            planted.plant(f"imported {name}", value)
    api_key = (await system.operator.simulate("POST", "/__simulate/accounts", {"kind": "api_key"}))["api_key"]
    planted.plant("api key", api_key)
    url = f"http://127.0.0.1:{system.ports.simulator}/v1"
    bad = {
        kind: planted.plant(f"bad {kind}", canary(kind))
        for kind in ("access_token", "refresh_token", "id_token", "password", "api_key", "field", "callback", "query")
    }
    broken = {"tokens": {name: bad[name] for name in ("access_token", "refresh_token", "id_token")}}
    halves = {"tokens": {"access_token": planted.plant("half a sign-in", jwt("half")), "refresh_token": 5}}
    posts = [
        ("/api/accounts/import", made["auth_json"]),
        ("/api/accounts/import", broken),
        ("/api/accounts/import", halves),
        ("/api/accounts/import", {"OPENAI_API_KEY": bad["api_key"]}),
        ("/api/accounts", {"kind": "api_key", "name": "good", "base_url": url, "api_key": api_key}),
        ("/api/accounts", {"kind": "api_key", "name": "bad", "base_url": "nowhere", "api_key": bad["api_key"]}),
        (
            "/api/accounts",
            {"kind": "api_key", "name": "x", "base_url": f"https://u:{bad['password']}@e.example", "api_key": "k"},
        ),
        ("/api/accounts", {"kind": "api_key", "api_key": {"nested": bad["field"]}}),
        (f"/api/keys?token={bad['query']}", {"name": 7, "secret": bad["field"]}),
    ]
    for path, body in posts:
        answer = await system.operator._control.post(path, json=body)
        planted.answers.append(answer.content)
    form = {"auth_json": ("auth.json", json.dumps(broken).encode() + b"}", "application/json")}
    planted.answers.append((await system.operator._control.post("/api/accounts/import", files=form)).content)
    wrong = planted.plant("wrong admin token", canary("admin"))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{system.ports.control}", trust_env=False) as stranger:
        for path in ("/api/accounts", f"/api/accounts?access_token={bad['query']}", "/api/keys"):
            answer = await stranger.get(path, headers={"authorization": f"Bearer {wrong}"})
            planted.answers.append(answer.content)


async def clients_succeed_and_fail(planted, system):
    turn = {**TURN, "instructions": planted.secrets["prompt"]}
    unknown = planted.plant("unknown client key", f"sk-sg-{canary('key')}")
    sign_in = planted.plant("client's own sign-in", jwt("client"))
    cookie = planted.plant("cookie", canary("cookie"))
    ways = [
        system.headers,
        {"authorization": f"Bearer {unknown}"},
        {"authorization": f"Bearer {sign_in}"},
        {"authorization": f"Bearer {sign_in}", "x-sluicegate-key": system.key.key},
        {**system.headers, "cookie": f"session={cookie}", "x-api-key": cookie},
        {**system.headers, "x-simulate": "status=500"},
        {**system.headers, "x-simulate": "status=400"},
        {**system.headers, "x-simulate": "cut=2"},
    ]
    for headers in ways:
        for path in (CODEX, "/v1/responses", f"{CODEX}?api_key={cookie}"):
            with contextlib.suppress(httpx.RemoteProtocolError):
                await system.edge.post(path, json=turn, headers=headers)
        with contextlib.suppress(InvalidStatus):
            async with connect(
                f"ws://127.0.0.1:{system.ports.edge}{CODEX}", additional_headers=headers, proxy=None
            ) as socket:
                await socket.send(json.dumps({**turn, "type": "response.create"}))
                while json.loads(await socket.recv())["type"] not in {"response.completed", "response.failed", "error"}:
                    pass
                await socket.send(planted.secrets["prompt"])
                planted.answers.append(str(await socket.recv()).encode())
    broken = await system.edge.post(CODEX, content=planted.secrets["prompt"], headers=system.headers)
    planted.answers.append(broken.content)


async def tokens_are_refused_and_refreshed(planted, system):
    """A token is refused, refreshed, and the refresh itself fails in the ways it can."""
    items = (await system.operator.simulate("GET", "/__simulate/accounts"))["items"]
    there = [account["id"] for account in items if account["kind"] == "chatgpt"]
    accounts = (await system.operator.control("GET", "/api/accounts"))["items"]
    ids = [account["id"] for account in accounts if account["kind"] == "chatgpt"]
    for fault in ({"tokens": "invalidate"}, {"simulate": "status=401", "on": "responses", "times": 2}):
        for account in there:
            await system.operator.simulate("PUT", f"/__simulate/accounts/{account}", fault)
        await system.turn(instructions=planted.secrets["prompt"])
    for status in (500, 429):
        wish = {"simulate": f"status={status}", "on": "refresh", "times": 1}
        await system.operator.simulate("PUT", f"/__simulate/accounts/{there[0]}", wish)
        for account in ids:
            planted.answers.append((await system.operator._control.post(f"/api/accounts/{account}/refresh")).content)
        await system.operator.simulate("DELETE", f"/__simulate/accounts/{there[0]}")
    for account in ids:
        planted.answers.append((await system.operator._control.post(f"/api/accounts/{account}/refresh")).content)
    plant_what_is_stored(planted, system, when="refreshed")
    for account in there:
        await system.operator.simulate("PUT", f"/__simulate/accounts/{account}", {"tokens": "end_families"})
    for account in ids:
        planted.answers.append((await system.operator._control.post(f"/api/accounts/{account}/refresh")).content)
    await system.turn(instructions=planted.secrets["prompt"])


async def roles_are_wrong(planted, system):
    wrong = planted.plant("wrong role token", canary("role"))
    async with grpc.aio.insecure_channel(system.admission_target) as channel:
        stub = session_grpc.AdmissionServiceStub(channel)
        for token in (wrong, planted.secrets["token of reader"]):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Acquire(session_pb.AcquireRequest(), metadata=(("authorization", f"Bearer {token}"),))
            planted.answers.append(str(refused.value).replace(token, "").encode())


def plant_what_is_stored(planted, system, when="stored"):
    """Adds what the control API holds by now, after refreshes that nobody outside has seen."""
    folder = system.stack.options.directory / "control"
    vault = Vault(read_private(system.stack.secrets.vault_key))
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'control.db'}?mode=ro", uri=True)) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        values = [value for table in tables for row in database.execute(f"SELECT * FROM {table}") for value in row]
    for number, value in enumerate(value for value in values if isinstance(value, bytes) and value[:4] == b"gAAA"):
        secret = vault.decrypt(value)
        if len(secret) >= SUFFIX and secret not in planted.secrets.values():
            planted.plant(f"{when} {number}", secret)


async def test_the_system_holds_secrets_that_nobody_outside_has_seen(planted):
    assert sum(name.startswith(("stored", "refreshed")) for name in planted.secrets) >= 2, list(planted.secrets)


@pytest.mark.parametrize("service", SERVICES)
async def test_no_secret_is_in_a_log(system, planted, service):
    assert planted.found_in(system.stack.log_path(service).read_bytes()) == set()


async def test_no_secret_is_in_the_metrics(system, planted):
    ports = (system.ports.admission_metrics, system.ports.control_metrics, system.ports.edge_metrics)
    async with httpx.AsyncClient(trust_env=False) as client:
        for port in ports:
            metrics = await client.get(f"http://127.0.0.1:{port}/metrics")

            assert metrics.status_code == 200
            assert planted.found_in(metrics.content) == set()


async def test_no_secret_is_in_the_state(system, planted):
    async with system.open_turn(simulate="hang"), system.state_service() as service:
        states = [
            await service.GetState(state_pb.GetStateRequest()),
            await service.ListResources(state_pb.ListResourcesRequest()),
            await service.ListSessions(state_pb.ListSessionsRequest()),
            await service.ListLeases(state_pb.ListLeasesRequest()),
            await service.ListAccounts(state_pb.ListAccountsRequest()),
        ]
        watch = service.WatchState(state_pb.WatchStateRequest())
        states.append(await watch.read())
        watch.cancel()

    for state in states:
        assert planted.found_in(text_format.MessageToString(state).encode() + state.SerializeToString()) == set()


async def test_no_answer_of_the_rest_api_holds_a_secret(system, planted):
    description = (await system.operator._control.get("/openapi.json")).content
    accounts = (await system.operator.control("GET", "/api/accounts"))["items"]
    paths = [path for path, methods in json.loads(description)["paths"].items() if "get" in methods]
    filled = {path.replace("{account_id}", account["id"]) for path in paths for account in accounts}
    answers = [description, *planted.answers]
    known = sorted(path for path in filled if "{" not in path)
    answers += [(await system.operator._control.get(path)).content for path in known]

    assert len(answers) > 20
    for answer in answers:
        assert planted.found_in(answer) == set(), answer


async def test_no_file_holds_a_secret_that_is_not_its_own(system, planted):
    root = system.stack.options.directory
    files = [path for path in root.rglob("*") if path.is_file()]
    found = {str(path.relative_to(root)): planted.found_in(path.read_bytes()) for path in files}

    assert "control/control.db" in found
    assert {name: found[name] for name in planted.allowed} == planted.allowed  # the search does find what is there
    assert {name: names for name, names in found.items() if names - planted.allowed.get(name, set())} == {}


async def test_files_with_secrets_are_their_owners_alone(system, planted):
    root = system.stack.options.directory
    for name in [*planted.allowed, "control/control.db"]:
        assert (root / name).stat().st_mode & 0o077 == 0, name


async def test_no_secret_is_in_a_command_line(system, planted):
    for service in SERVICES:
        command = Path(f"/proc/{system.stack.pid(service)}/cmdline")
        if command.exists():
            assert planted.found_in(command.read_bytes()) == set()


@pytest.mark.parametrize(
    ("module", "variable"),
    [
        ("control_api", "SLUICEGATE_CONTROL_VAULT_KEY"),
        ("control_api", "SLUICEGATE_CONTROL_ADMIN_TOKEN"),
        ("control_api", "SLUICEGATE_CONTROL_ADMISSION_TOKEN"),
        ("edge_proxy", "SLUICEGATE_EDGE_ADMISSION_TOKEN"),
        ("admission_server", "tokens"),
    ],
)
async def test_a_start_that_fails_says_nothing_of_the_secrets_it_was_given(tmp_path, module, variable):
    secret = canary("start")
    (tmp_path / "tokens").write_text(f"nobody {secret}\n{secret}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
    environment |= {
        "SLUICEGATE_CONTROL_ADMISSION_TOKEN": "t",
        "SLUICEGATE_CONTROL_DATA_DIR": str(tmp_path),
        "SLUICEGATE_ADMISSION_STATE_DIR": str(tmp_path),
        "SLUICEGATE_ADMISSION_TOKENS_FILE": str(tmp_path / "tokens"),
    }
    for service in ("CONTROL", "EDGE"):  # a setting that is wrong as well, so that none of them starts
        environment[f"SLUICEGATE_{service}_PORT"] = "-1" if variable != "SLUICEGATE_CONTROL_VAULT_KEY" else "0"
    environment[variable] = secret

    done = subprocess.run([sys.executable, "-m", module], env=environment, capture_output=True, timeout=60, check=False)

    assert done.returncode in {1, 2}
    assert secret.encode() not in done.stdout + done.stderr
