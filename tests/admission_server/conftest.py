import socket

import pytest

from tests.admission_server.running import running_server


@pytest.fixture
async def running(tmp_path):
    async with running_server(tmp_path) as server:
        yield server


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
