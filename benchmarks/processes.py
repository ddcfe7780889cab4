"""Servers to measure, each in a process of its own on one core. The client is this process, on another core."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE = 0
CLIENT_CORE = 1
EDGE_TOKEN = "bench-edge-0123456789abcdef"
CONTROL_TOKEN = "bench-control-0123456789abcdef"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that runs."""

    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def target(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """Returns the CPU time that it has used so far; 0 where /proc does not tell."""
        return cpu_seconds(self.process.pid)


def pin_client() -> None:
    """Keeps this process on its core, where there is more than one."""
    pin(CLIENT_CORE)


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process and of the children it has now; 0 where /proc does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


@contextmanager
def admission_server() -> Iterator[Server]:
    """Runs the real admission server while the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        tokens.write_text(f"edge {EDGE_TOKEN}\ncontrol {CONTROL_TOKEN}\n")
        tokens.chmod(0o600)
        port = free_port()
        environment = {
            "SLUICEGATE_ADMISSION_HOST": "127.0.0.1",
            "SLUICEGATE_ADMISSION_PORT": str(port),
            "SLUICEGATE_ADMISSION_METRICS_PORT": str(free_port()),
            "SLUICEGATE_ADMISSION_STATE_DIR": str(Path(folder) / "state"),
            "SLUICEGATE_ADMISSION_TOKENS_FILE": str(tokens),
        }
        with _running([sys.executable, "-m", "admission_server"], port, environment) as process:
            yield Server(port=port, process=process)


@contextmanager
def redis_server() -> Iterator[Server]:
    """Runs redis-server, in memory only. Raises `FileNotFoundError` where it is not installed."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise FileNotFoundError("redis-server is not installed")
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _running(command, port, {}) as process:
        yield Server(port=port, process=process)


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(command: Sequence[str], port: int, environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pin(SERVER_CORE, process.pid)
    try:
        wait_until_listening(process, port)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_listening(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Waits until a process accepts connections on a port. Raises `RuntimeError` when it ends or takes too long."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen")


def pin(core: int, pid: int = 0) -> None:
    """Keeps a process, and the threads that it has already, on one core, where there are several. 0 is this process."""
    if not hasattr(os, "sched_setaffinity") or core >= (os.cpu_count() or 1):
        return
    for thread in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})
