"""The process itself."""

import asyncio

import pytest

from service_runtime.process import StartupError
from upstream_simulator.app import serve
from upstream_simulator.settings import SimulatorSettings


async def test_it_serves_until_it_is_told_to_stop():
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(SimulatorSettings(port=0), stop))
    stop.set()

    async with asyncio.timeout(5):
        await serving


async def test_a_taken_port_is_an_error_that_names_it(simulator):
    port = int(simulator.url.rpartition(":")[2])

    with pytest.raises(StartupError, match=str(port)):
        await serve(SimulatorSettings(port=port), asyncio.Event())
