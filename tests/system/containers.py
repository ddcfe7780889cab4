"""A system of containers, driven with the Docker CLI as an operator would: project, ports, logs, what is inside."""

import asyncio
import contextlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx

from demo.ports import Ports

REPOSITORY = Path(__file__).parents[2]
SERVICES = ("admission_server", "control_api", "edge_proxy")
_PROFILES = ("--profile", "demo", "--profile", "scale")


@dataclass(frozen=True)
class Inside:
    """What a container is and may do."""

    user: str
    capabilities: int
    """Every capability that process 1 has or could ever get, as a bit mask."""
    no_new_privileges: bool
    read_only: bool
    writable: frozenset[str]
    """Mount points that process 1 can write to."""
    listening: frozenset[int]


class Compose:
    """`docker compose` with a project of its own, on free ports."""

    def __init__(self, project):
        self.project = project
        self.ports = Ports.free()
        self._environment = {
            **os.environ,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_PROGRESS": "quiet",
            "SLUICEGATE_EDGE_PUBLISHED_PORT": str(self.ports.edge),
            "SLUICEGATE_EDGE_2_PUBLISHED_PORT": str(self.ports.edge_metrics),
            "SLUICEGATE_CONTROL_PUBLISHED_PORT": str(self.ports.control),
            "SLUICEGATE_ADMISSION_PUBLISHED_PORT": str(self.ports.admission),
            "SLUICEGATE_ADMISSION_SESSION_TTL": "4",
            "SLUICEGATE_EDGE_FORWARD_SIMULATE": "true",
        }

    def run(self, *arguments, check=True, within=240):
        """Runs one command and returns its standard output."""
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.project, *_PROFILES, *arguments],
            cwd=REPOSITORY,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    async def start(self, *arguments):
        """Runs one command without blocking the loop, and returns its standard output."""
        return await asyncio.to_thread(self.run, *arguments)

    def container(self, service):
        """Returns the id of a service's container."""
        return self.run("ps", "--all", "--quiet", service).strip()

    def inside(self, service):
        """Looks into a running container with its own Python, which is the only tool there."""
        script = (
            "import json, os\n"
            "status = dict(line.split(':', 1) for line in open('/proc/1/status') if ':' in line)\n"
            "mounts = {line.split()[1] for line in open('/proc/mounts')}\n"
            "def writable(path):\n"
            "    try:\n"
            "        name = os.path.join(path, '.probe')\n"
            "        open(name, 'w').close(); os.unlink(name); return True\n"
            "    except OSError:\n"
            "        return False\n"
            "ports = {int(line.split()[1].split(':')[1], 16) for name in ('tcp', 'tcp6')\n"
            "         for line in open('/proc/net/' + name) if line.split()[3] == '0A'\n"
            "         and not line.split()[1].startswith(('0100007F', '0B00007F'))}\n"
            "sets = ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')\n"
            "capabilities = sum(int(status[name], 16) for name in sets)\n"
            "print(json.dumps({'user': status['Uid'].split()[1], 'capabilities': capabilities,\n"
            "  'no_new_privileges': status['NoNewPrivs'].strip() == '1', 'read_only': not writable('/'),\n"
            "  'writable': sorted(m for m in mounts | {'/app', '/opt', '/etc', '/var/tmp', '/home'} if writable(m)),\n"
            "  'listening': sorted(ports)}))\n"
        )
        found = json.loads(self.run("exec", "-T", service, "python", "-c", script))
        return Inside(**{**found, "writable": frozenset(found["writable"]), "listening": frozenset(found["listening"])})

    def seen_by_engine(self, service):
        """Returns what the engine knows of a service's container."""
        return json.loads(docker("inspect", self.container(service)))[0]

    def written(self, service):
        """Returns what a container has changed outside its volumes, a line each."""
        return docker("diff", self.container(service)).splitlines()

    def secret(self, service, name):
        """Reads a secret of a service."""
        return self.run("exec", "-T", service, "cat", f"/secrets/{name}").strip()

    def simulate(self, account):
        """Makes an account in the simulator, which is not published, and returns its answer."""
        script = (
            "import sys, urllib.request as r; print(r.urlopen(r.Request('http://127.0.0.1:9999/__simulate/accounts', "
            "sys.argv[1].encode(), {'content-type': 'application/json'})).read().decode())"
        )
        return self.run("exec", "-T", "upstream_simulator", "python", "-c", script, account)

    @contextlib.contextmanager
    def up(self):
        """Builds, starts and at the end removes everything, volumes included."""
        self.run("build", within=900)
        try:
            self.run("up", "--detach", "--wait", *SERVICES, "upstream_simulator")
            yield self
        finally:
            self.run("down", "--volumes", "--timeout", "5", check=False)


def docker(*arguments, within=120):
    """Runs one command of the Docker CLI and returns its standard output."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=within, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def engine_runs():
    """Returns whether a Docker engine with Compose answers here."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        for command in (["docker", "version"], ["docker", "compose", "version"]):
            if subprocess.run(command, capture_output=True, timeout=20, check=False).returncode != 0:
                return False
        return True
    return False


async def is_ready(port):
    """Returns whether a published service says that it is ready."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            return (await client.get(f"http://127.0.0.1:{port}/health/ready")).status_code == 200
    except httpx.HTTPError:
        return False
