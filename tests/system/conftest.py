"""System tests run the real processes, each test module with a system of its own, and talk to them as clients would.

They share one event loop, so that a system can outlive a test. They wait for conditions, never for a fixed time.
"""

import os
import shutil
from pathlib import Path

import pytest
import pytest_asyncio

from demo.ports import Ports
from demo.services import SystemOptions
from tests.system.running import RunningSystem

REPOSITORY = Path(__file__).parents[2]


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(request, tmp_path_factory):
    """The simulator and the three processes, with one account and one key. A module's ENVIRONMENT is added to them."""
    options = SystemOptions(
        directory=tmp_path_factory.mktemp("system"),
        ports=Ports.free(),
        environment=getattr(request.module, "ENVIRONMENT", {}),
    )
    async with RunningSystem(options) as running:
        yield running


@pytest.fixture(scope="session")
def grpcurl():
    """The path of grpcurl, from `make tools` or from the system."""
    return needed("grpcurl", REPOSITORY / ".tools" / "bin" / "grpcurl", "run `make tools` where Go is")


def needed(command, installed, remedy):
    """Returns the path of a command. Without it the test skips and says why, but never in CI."""
    found = str(installed) if installed.exists() else shutil.which(command)
    if found is None:
        message = f"{command} is not installed: {remedy}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found
