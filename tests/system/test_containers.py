"""The three containers as people run them: built, started with the compose file, driven from outside."""

import asyncio
import json
import os
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from cryptography import x509

from admission_server.settings import AdmissionSettings
from control_api.serving import DRAIN_TIMEOUT
from demo.operator import ClientKey
from edge_proxy.settings import EdgeSettings
from tests.system.certificates import Authority
from tests.system.containers import SERVICES, Compose, docker, engine_runs, is_ready
from tests.system.running import TURN, events_of, eventually

pytestmark = pytest.mark.timeout(900)
ACCOUNT = {
    "kind": "api_key",
    "name": "simulated",
    "base_url": "http://upstream_simulator:9999/v1",
}


class Published:
    """The containers, an account and a key, seen through the published ports."""

    def __init__(self, compose, grpcurl):
        self.compose = compose
        self.grpcurl = grpcurl
        self.edge = f"http://127.0.0.1:{compose.ports.edge}"
        self.control = f"http://127.0.0.1:{compose.ports.control}"
        self.target = f"127.0.0.1:{compose.ports.admission}"
        self.admin = {"authorization": f"Bearer {compose.secret('control_api', 'admin-token')}"}
        self.http = httpx.AsyncClient(trust_env=False, timeout=30)

    async def add_account_and_key(self):
        made = json.loads(self.compose.simulate('{"kind":"api_key"}'))
        added = await self.http.post(
            f"{self.control}/api/accounts", json={**ACCOUNT, "api_key": made["api_key"]}, headers=self.admin
        )
        assert added.status_code == 201, added.text
        key = (await self.http.post(f"{self.control}/api/keys", json={"name": "me"}, headers=self.admin)).json()
        self.key = ClientKey(id=key["id"], key=key["key"])

    @property
    def client(self):
        return {"authorization": f"Bearer {self.key.key}"}

    def open_turn(self, simulate=""):
        headers = {**self.client, **({"x-simulate": simulate} if simulate else {})}
        return self.http.stream("POST", f"{self.edge}/backend-api/codex/responses", json=TURN, headers=headers)

    async def turn(self, simulate=""):
        async with self.open_turn(simulate) as answer:
            await answer.aread()
        return answer

    async def serves(self):
        try:
            return (await self.turn()).status_code == 200
        except httpx.HTTPError:
            return False

    async def state(self, method="GetState"):
        process = await asyncio.create_subprocess_exec(
            self.grpcurl,
            "-plaintext",
            self.target,
            f"admission.v1.StateService/{method}",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            output, _ = await process.communicate()
        return json.loads(output) if output else {}

    async def nothing_is_held(self):
        return not (await self.state("ListLeases")).get("leases")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def published(grpcurl):
    if not engine_runs():
        if os.environ.get("CI"):
            pytest.fail("no Docker engine with Compose answers here")
        pytest.skip("no Docker engine with Compose answers here")
    compose = Compose(f"sluicegate-test-{os.getpid()}")
    with compose.up():
        system = Published(compose, grpcurl)
        await system.add_account_and_key()
        await eventually(system.serves, what="a first turn is served")
        yield system
        await system.http.aclose()


async def test_a_turn_is_served_through_the_published_port(published):
    answer = await published.turn()

    assert answer.status_code == 200
    assert events_of(answer.text)[-1]["type"] == "response.completed"


async def test_grpcurl_sees_the_lanes_from_outside(published):
    state = await published.state()

    assert "lanes/proxy_http" in {resource["name"] for resource in state["resources"]}


async def test_each_container_is_an_ordinary_user_without_capabilities_that_can_write_to_its_volumes_only(published):
    found = {service: published.compose.inside(service) for service in SERVICES}

    for service, inside in found.items():
        assert inside.user == "10001", service
        assert inside.capabilities == 0, service
        assert inside.no_new_privileges, service
        assert inside.read_only, service
    allowed = {"/dev", "/dev/shm", "/dev/mqueue"}
    assert found["admission_server"].writable - allowed == {"/data"}
    assert found["control_api"].writable - allowed == {"/data", "/tmp"}
    assert found["edge_proxy"].writable - allowed == {"/tmp"}


async def test_each_container_listens_on_its_service_port_only(published):
    found = {service: published.compose.inside(service).listening for service in SERVICES}

    assert found == {
        "admission_server": frozenset({50051}),
        "control_api": frozenset({8081}),
        "edge_proxy": frozenset({8080}),
    }


async def test_only_the_edge_is_published_beyond_this_machine(published):
    ports = {
        service: json.loads(published.compose.run("ps", "--format", "json", service))["Publishers"]
        for service in SERVICES
    }

    hosts = {
        service: {entry["URL"] for entry in entries if entry["PublishedPort"]} for service, entries in ports.items()
    }
    assert hosts["admission_server"] == hosts["control_api"] == {"127.0.0.1"}
    assert "0.0.0.0" in hosts["edge_proxy"]


async def test_no_container_sees_another_ones_secrets(published):
    seen = {
        service: set(published.compose.run("exec", "-T", service, "ls", "/secrets").split()) for service in SERVICES
    }

    assert seen == {
        "admission_server": {"tokens"},
        "control_api": {"admission-token", "admin-token", "vault.key"},
        "edge_proxy": {"admission-token"},
    }


async def test_the_images_hold_no_installer_no_compiler_no_simulator_and_no_tests(published):
    script = (
        "import importlib.util as u, shutil; "
        "modules = ('pip', 'setuptools', 'ensurepip', 'wheel', 'pytest', 'upstream_simulator', 'demo', 'tests', 'uv'); "
        "commands = ('pip', 'pip3', 'cc', 'gcc', 'g++', 'clang', 'make', 'ld', 'go', 'git', 'curl', 'wget'); "
        "print([n for n in modules if u.find_spec(n)] + [n for n in commands if shutil.which(n)])"
    )

    found = {service: published.compose.run("exec", "-T", service, "python", "-c", script) for service in SERVICES}
    assert {service: text.strip() for service, text in found.items()} == dict.fromkeys(SERVICES, "[]")


OF_ONE = {
    "admission_server": {"admission_server", "grpc_health", "grpc_reflection"},
    "control_api": {"control_api", "admission_client", "fastapi", "sqlalchemy", "cryptography", "httpx", "uvicorn"},
    "edge_proxy": {"edge_proxy", "admission_client", "aiohttp", "zstandard", "msgspec", "websockets", "uvicorn"},
}


async def test_each_image_holds_its_own_service_and_what_that_needs(published):
    names = sorted(set().union(*OF_ONE.values()))
    script = f"import importlib.util as u; print(*(n for n in {names} if u.find_spec(n)))"

    found = {
        service: set(published.compose.run("exec", "-T", service, "python", "-c", script).split())
        for service in SERVICES
    }
    assert found == OF_ONE


async def test_each_container_is_bounded_and_comes_back_by_itself(published):
    for service in SERVICES:
        seen = published.compose.seen_by_engine(service)
        host = seen["HostConfig"]

        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        assert 0 < host["Memory"] <= 2**30, service
        assert 0 < host["PidsLimit"] <= 256, service
        assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}, service
        assert host["CapDrop"] == ["ALL"], service
        assert not host["CapAdd"], service
        assert not host["Privileged"], service
        assert seen["Config"]["Hostname"] == {"edge_proxy": "edge-1"}.get(service, service.replace("_", "-")), service
        assert seen["State"]["Health"]["Status"] == "healthy", service


async def test_each_container_is_given_longer_to_stop_than_its_service_takes(published):
    drains = {
        "admission_server": AdmissionSettings.model_fields["drain_timeout"].default,
        "control_api": DRAIN_TIMEOUT,
        "edge_proxy": EdgeSettings.model_fields["drain_timeout"].default,
    }

    given = {service: published.compose.seen_by_engine(service)["Config"]["StopTimeout"] for service in SERVICES}
    assert {service: given[service] > drains[service] + 5 for service in SERVICES} == dict.fromkeys(SERVICES, True)


async def test_the_step_that_makes_the_secrets_has_ended_well_and_had_no_network(published):
    seen = published.compose.seen_by_engine("secrets")

    assert seen["State"]["ExitCode"] == 0
    assert seen["HostConfig"]["NetworkMode"] == "none"
    assert seen["HostConfig"]["ReadonlyRootfs"]
    assert seen["Config"]["User"] == "10001:10001"
    data = next(mount for mount in seen["Mounts"] if mount["Destination"] == "/init/control_data")
    assert not data["RW"]


async def test_what_is_kept_belongs_to_the_ordinary_user_and_to_nobody_else(published):
    script = (
        "import os, stat\n"
        "for folder in ('/data', '/secrets'):\n"
        "    for name in os.listdir(folder):\n"
        "        found = os.stat(os.path.join(folder, name))\n"
        "        print(folder, name, found.st_uid, oct(stat.S_IMODE(found.st_mode) & 0o077))\n"
    )
    found = "".join(published.compose.run("exec", "-T", service, "python", "-c", script) for service in SERVICES)

    kept = [line.split() for line in found.splitlines()]
    assert {"control.db", "vault.key", "tokens", "admin-token"} <= {name for _, name, _, _ in kept}
    assert {owner for _, _, owner, _ in kept} == {"10001"}
    assert {others for folder, _, _, others in kept if folder == "/secrets"} == {"0o0"}
    assert [(folder, others) for folder, name, _, others in kept if name == "vault.key"] == [("/secrets", "0o0")]


async def test_an_account_is_imported_over_rest(published):
    made = json.loads(published.compose.simulate('{"kind":"chatgpt"}'))
    added = await published.http.post(
        f"{published.control}/api/accounts/import",
        files={"auth_json": ("auth.json", json.dumps(made["auth_json"]), "application/json")},
        headers=published.admin,
    )
    account = added.json()
    await published.http.delete(f"{published.control}/api/accounts/{account['id']}", headers=published.admin)

    assert added.status_code in (200, 201), added.text
    assert account["kind"] == "chatgpt"


async def test_a_second_edge_is_another_holder_at_the_same_admission_server(published):
    await published.compose.start("up", "--detach", "--wait", "--no-recreate", "edge_proxy_2")
    try:
        answer = await published.http.post(
            f"http://127.0.0.1:{published.compose.ports.edge_metrics}/backend-api/codex/responses",
            json=TURN,
            headers=published.client,
        )
        sessions = (await published.state("ListSessions"))["sessions"]
    finally:
        await published.compose.start("rm", "--stop", "--force", "edge_proxy_2")

    assert answer.status_code == 200
    assert {"edge-1/0", "edge-2/0"} <= {session["instance"] for session in sessions}


async def test_the_profile_demo_shows_a_turn_over_http_and_one_over_a_websocket(published):
    shown = await published.compose.start("run", "--rm", "--no-deps", "-T", "demo")

    assert "lanes/proxy_http" in shown
    assert "It held 1 seat of lanes/proxy_websocket." in shown
    printed = shown.partition("$ grpcurl -plaintext admission_server:50051 admission.v1.StateService/GetState\n")[2]
    state, _ = json.JSONDecoder().raw_decode(printed)
    held = {resource["name"]: resource.get("held") for resource in state["resources"]}
    assert held["lanes/proxy_websocket"] == 1


@pytest.mark.parametrize("service", ["edge_proxy", "control_api", "admission_server"])
async def test_a_killed_container_comes_back_and_all_seats_are_free(published, service):
    streams = [asyncio.create_task(published.turn("slow=0.2,events=20")) for _ in range(5)]
    await eventually(lambda: holds_seats(published), what="streams are running")
    await asyncio.to_thread(published.compose.run, "kill", "--signal", "KILL", service)
    await asyncio.gather(*streams, return_exceptions=True)
    await asyncio.to_thread(published.compose.run, "up", "--detach", "--wait", "--no-recreate", service)
    await eventually(published.serves, within=30, what=f"turns are served again after {service} was killed")
    await eventually(published.nothing_is_held, within=15, what="every seat is free")


async def test_nothing_was_written_outside_the_volumes(published):
    assert {service: published.compose.written(service) for service in SERVICES} == {name: [] for name in SERVICES}


@pytest.mark.parametrize("stopped", [("edge_proxy",), SERVICES])
async def test_stopping_in_order_loses_no_turn_that_is_shorter_than_the_drain(published, stopped):
    async with published.open_turn("slow=0.2,events=20") as answer:
        await eventually(lambda: holds_seats(published), what="the stream is running")
        stopping = asyncio.create_task(published.compose.start("stop", *stopped))
        body = (await answer.aread()).decode()
        await stopping
    status = {service: published.compose.seen_by_engine(service)["State"]["ExitCode"] for service in stopped}
    await published.compose.start("start", *stopped)
    await eventually(lambda: is_ready(published.compose.ports.edge), within=40, what="the edge is back")
    await eventually(published.serves, within=30, what="turns are served again")

    assert events_of(body)[-1]["type"] == "response.completed"
    assert status == dict.fromkeys(stopped, 0)


async def test_a_restart_of_everything_keeps_accounts_keys_and_limits(published):
    await published.http.patch(
        f"{published.control}/api/limits",
        json={"resources": {"lanes/proxy_http": {"limit": 77}}},
        headers=published.admin,
    )
    before = (await published.state())["epoch"]
    await published.compose.start("restart", *SERVICES)
    await eventually(lambda: is_ready(published.compose.ports.edge), within=40, what="the edge is back")
    await eventually(published.serves, within=30, what="the same account and key serve again")
    state = await published.state()

    assert int(state["epoch"]) > int(before)
    assert next(item["limit"] for item in state["resources"] if item["name"] == "lanes/proxy_http") == 77


@pytest.mark.parametrize("mutual", [False, True])
async def test_a_container_that_speaks_tls_is_healthy(published, tmp_path, mutual):
    files = Authority(tmp_path, "authority").issue("server", names=(x509.DNSName("admission.example"),))
    variables = {"TLS_CERTIFICATE": files.certificate, "TLS_KEY": files.key}
    variables |= {"TLS_AUTHORITY": files.authority} if mutual else {}
    tmp_path.chmod(0o755)
    for file in tmp_path.iterdir():
        file.chmod(0o644)  # the container's user is nobody here
    options = [f"--env=SLUICEGATE_ADMISSION_{name}=/tls/{Path(path or '').name}" for name, path in variables.items()]
    options += [f"--volume={tmp_path}:/tls:ro", f"--volume={published.compose.project}_admission_secrets:/secrets:ro"]
    options += ["--env=SLUICEGATE_ADMISSION_OPEN_STATE=false", "--tmpfs=/data:uid=10001,mode=0700", "--read-only"]
    container = docker("run", "--detach", *options, "sluicegate/admission_server").strip()
    try:
        await eventually(lambda: is_healthy(container), within=60, what="the container is healthy")
        health = json.loads(docker("inspect", "--format", "{{json .State.Health}}", container))
    finally:
        docker("rm", "--force", "--volumes", container)

    assert health["Log"][-1]["ExitCode"] == 0


async def is_healthy(container):
    return docker("inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy"


async def holds_seats(published):
    return not await published.nothing_is_held()
