"""The process as it is started: workers behind one port, restarts, summed metrics, and the way it stops.

The admission server is not there: an edge lives without it, and refuses work.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.edge_proxy.running import KEY, LONGEST_WAIT

STARTING = 60.0


@dataclass
class EdgeProcess:
    process: asyncio.subprocess.Process
    url: str
    metrics_url: str

    @property
    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    async def get(self, url: str) -> httpx.Response | None:
        async with httpx.AsyncClient(timeout=LONGEST_WAIT) as client:
            try:
                return await client.get(url)
            except httpx.TransportError:
                return None

    async def alive(self) -> bool:
        answer = await self.get(f"{self.url}/health/live")
        return answer is not None and answer.status_code == 200

    async def counted(self) -> float:
        answer = await self.get(f"{self.metrics_url}/metrics")
        lines = answer.text.splitlines() if answer else []
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith("sluicegate_edge_requests_total{")
        )


async def _until(condition, *, within: float = STARTING) -> None:
    async with asyncio.timeout(within):
        while not await condition():
            await asyncio.sleep(0.05)


@pytest.fixture
def workers() -> int:
    return 2


@pytest.fixture
async def edge_process(free_ports: list[int], workers: int) -> AsyncIterator[EdgeProcess]:
    port, metrics_port, nobody = free_ports
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")},
        "SLUICEGATE_EDGE_PORT": str(port),
        "SLUICEGATE_EDGE_METRICS_PORT": str(metrics_port),
        "SLUICEGATE_EDGE_WORKERS": str(workers),
        "SLUICEGATE_EDGE_ADMISSION_TARGET": f"127.0.0.1:{nobody}",
        "SLUICEGATE_EDGE_ADMISSION_TOKEN": "token",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge_proxy", env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    running = EdgeProcess(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}")
    try:
        await _until(running.alive)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_workers_share_a_port_come_back_are_counted_together_and_stop_in_order(edge_process: EdgeProcess):
    first, second = edge_process.workers
    os.kill(first, signal.SIGKILL)

    async def restarted() -> bool:
        return len(set(edge_process.workers) - {first, second}) == 1

    await _until(restarted)
    await _until(edge_process.alive)
    for _ in range(20):
        await edge_process.get(f"{edge_process.url}/api/accounts")
    counted = await edge_process.counted()
    edge_process.process.terminate()
    status = await asyncio.wait_for(edge_process.process.wait(), STARTING)

    assert counted == 20
    assert status == 0
    assert not await edge_process.alive()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_workers_end_when_their_supervisor_is_gone(edge_process: EdgeProcess):
    workers = edge_process.workers
    edge_process.process.kill()
    await edge_process.process.wait()

    async def gone() -> bool:
        return not any(_runs(pid) for pid in workers)

    await _until(gone)


@pytest.mark.parametrize("workers", [1])
async def test_an_edge_without_its_admission_server_lives_and_is_not_ready(edge_process: EdgeProcess):
    ready = await edge_process.get(f"{edge_process.url}/health/ready")
    async with httpx.AsyncClient(timeout=STARTING) as client:
        refused = await client.post(f"{edge_process.url}/v1/responses", headers=KEY, json={})

    assert ready is not None
    assert ready.status_code == 503
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "admission_unavailable")
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_taken_port_is_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edge_proxy",
            env={**os.environ, "SLUICEGATE_EDGE_PORT": port, "SLUICEGATE_EDGE_METRICS_PORT": "0"},
            stderr=asyncio.subprocess.PIPE,
        )
        _, told = await asyncio.wait_for(process.communicate(), STARTING)

    assert process.returncode == 1
    assert port.encode() in told


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
