"""`make demo` shows a turn, writes where it is, keeps running what dies, and stops everything on Ctrl-C."""

import asyncio
import json
import os
import shlex
import signal
import socket
import stat
import sys
from pathlib import Path

import httpx
import pytest

from demo.ports import Ports
from tests.system.running import eventually

REPOSITORY = Path(__file__).parents[2]


class Demo:
    """`python -m demo` in a folder of its own."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        self.arguments = arguments
        self.output = ""

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "demo",
            *self.arguments,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto'}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        self.reader = self.process.stdout
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await self.finish()

    async def finish(self):
        async with asyncio.timeout(60):
            self.output += (await self.reader.read()).decode()
            return await self.process.wait()

    async def wait_until_it_says(self, words):
        async with asyncio.timeout(60):
            while words not in self.output:
                piece = await self.reader.read(4096)
                assert piece, self.output
                self.output += piece.decode()

    @property
    def variables(self):
        text = (self.folder / ".demo" / "demo.env").read_text()
        return dict(shlex.split(line)[0].split("=", 1) for line in text.splitlines())


@pytest.fixture
def port_base():
    """A port from which on seven are free now."""
    for base in range(21000, 60000, 50):
        ports = Ports.from_base(base)
        try:
            ports.check_free()
        except Exception:
            continue
        return base
    raise AssertionError("no free ports")


async def test_once_shows_the_answer_and_its_seats_and_ends_well(tmp_path, port_base):
    async with Demo(tmp_path, "--once", "--port-base", str(port_base)) as demo:
        status = await demo.finish()

    assert status == 0, demo.output
    assert "lanes/proxy_http" in demo.output
    _, command, printed = demo.output.partition(
        f"$ grpcurl -plaintext 127.0.0.1:{port_base + 2} admission.v1.StateService/GetState\n"
    )
    assert command, demo.output
    held = {resource["name"]: resource.get("held") for resource in json.loads(printed)["resources"]}
    assert held["lanes/proxy_websocket"] == 1
    assert not (tmp_path / ".demo" / "demo.env").exists()


async def test_it_writes_where_it_is_restarts_what_dies_and_stops_on_ctrl_c(tmp_path, port_base):
    async with Demo(tmp_path, "--port-base", str(port_base)) as demo:
        await demo.wait_until_it_says("Running until Ctrl-C")
        known = demo.variables
        mode = stat.S_IMODE((tmp_path / ".demo" / "demo.env").stat().st_mode)
        answer = httpx.post(
            f"{known['SLUICEGATE_DEMO_EDGE_URL']}/v1/responses",
            headers={"authorization": f"Bearer {known['SLUICEGATE_DEMO_API_KEY']}"},
            json={"model": "gpt-5.5", "input": "hello"},
            trust_env=False,
            timeout=20,
        )
        children = children_of(demo.process.pid)
        edge = next(pid for pid in children if b"edge_proxy" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(edge, signal.SIGKILL)
        await demo.wait_until_it_says("edge_proxy ended with status -9; starting it again")
        await eventually(lambda: answers(known["SLUICEGATE_DEMO_EDGE_URL"]), what="the edge is back")
        children = children_of(demo.process.pid)
        demo.process.send_signal(signal.SIGINT)
        status = await demo.finish()

    assert answer.status_code == 200, answer.text
    assert mode == 0o600
    assert set(known) == {
        f"SLUICEGATE_DEMO_{name}"
        for name in ("EDGE_URL", "CONTROL_URL", "ADMISSION_TARGET", "SIMULATOR_URL", "API_KEY", "ADMIN_TOKEN")
    } | {"SLUICEGATE_DEMO_EDGE_TOKEN"}
    assert status == 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert not (tmp_path / ".demo" / "demo.env").exists()


async def test_a_taken_port_is_an_error_that_names_it(tmp_path, port_base):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port_base + 1))
        other.listen()
        async with Demo(tmp_path, "--port-base", str(port_base)) as demo:
            status = await demo.finish()

    assert status == 1
    assert f"port {port_base + 1} (control)" in demo.output


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def answers(url):
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{url}/health/ready")).status_code == 200
    except httpx.HTTPError:
        return False
