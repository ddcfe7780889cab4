"""Lanes without a free seat, as a client meets them on a busy day: refusals that name a short wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import websockets.asyncio.client

from tests.system.running import RunningSystem

_PATH = "/backend-api/codex/responses"
_TURNOVER = 20
"""Seats that came back lately make a short `Retry-After`: a quiet lane cannot know how long its turns take."""


@contextlib.asynccontextmanager
async def full_lane(system: RunningSystem, lane: str) -> AsyncIterator[None]:
    """Inside the block the only seat of `proxy_http` or `proxy_websocket` is taken; afterwards there are 200 again."""
    await asyncio.gather(*(_come_and_go(system, lane) for _ in range(_TURNOVER)))
    await system.operator.set_limit(f"lanes/{lane}", limit=1)
    try:
        async with _seat(system, lane, simulate="hang"):
            yield
    finally:
        await system.operator.set_limit(f"lanes/{lane}", limit=200)


async def _come_and_go(system: RunningSystem, lane: str) -> None:
    async with _seat(system, lane, simulate="status=400"):
        pass


def _seat(system: RunningSystem, lane: str, *, simulate: str) -> AbstractAsyncContextManager[Any]:
    if lane == "proxy_http":
        return system.open_turn(simulate=simulate)
    uri = f"ws://127.0.0.1:{system.ports.edge}{_PATH}"
    return websockets.asyncio.client.connect(uri, additional_headers=system.headers, proxy=None)
