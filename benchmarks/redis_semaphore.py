"""The comparison: the same semaphore as a Lua script in Redis, in its best-known shape.

A sorted set of holders scored with Redis's own time; the script removes who has expired, counts, and adds. That is an
acquire with a limit and an expiry, and nothing else: no queue, no selection, no all-or-nothing over several resources.
Measured like ours: a cycle is an acquire answered and a release sent. The client is as fast as `redis.asyncio` can be
made without a client of one's own: hiredis reads and writes, the script is called by its hash, uvloop runs it.
"""

import asyncio
import time
from typing import Any

import redis.asyncio

from benchmarks.load import Cycle

_ACQUIRE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
if redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('ZADD', KEYS[1], now, ARGV[3])
  return 1
end
return 0
"""
_KEY = "lanes/proxy_http"
_LIMIT = 1_000_000
_TTL_MS = 15_000


async def connection_per_caller(clients: list["redis.asyncio.Redis"]) -> Cycle:
    """Returns a cycle in which each caller talks on a connection of its own."""
    script = await clients[0].script_load(_ACQUIRE)
    connections = [await _connected(client) for client in clients]

    async def cycle(caller: int, n: int) -> float:
        holder = f"{caller}.{n}"
        began = time.perf_counter()
        await clients[caller].evalsha(script, 1, _KEY, _LIMIT, _TTL_MS, holder)
        waited = time.perf_counter() - began
        # Without an answer, as our releases are: it is a fifth faster than a call of `zrem`.
        connection = connections[caller]
        release = connection.pack_commands((("CLIENT", "REPLY", "SKIP"), ("ZREM", _KEY, holder)))
        await connection.send_packed_command(release, check_health=False)
        return waited

    return cycle


async def _connected(client: "redis.asyncio.Redis") -> "redis.asyncio.Connection":
    await client.initialize()
    if client.connection is None:
        raise TypeError("the client must have a connection of its own")
    return client.connection


class Coalescer:
    """Puts what many callers want into one pipeline after another, on one connection: the trick of our own stream."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client
        self._script = ""
        self._acquires: list[tuple[str, asyncio.Future[Any]]] = []
        self._releases: list[str] = []
        self._something = asyncio.Event()
        self._stopped = False

    async def run(self) -> None:
        """Sends pipelines until it is stopped."""
        self._script = await self._client.script_load(_ACQUIRE)
        while not self._stopped:
            await self._something.wait()
            self._something.clear()
            acquires, self._acquires = self._acquires, []
            releases, self._releases = self._releases, []
            if not (acquires or releases):
                continue
            pipeline = self._client.pipeline(transaction=False)
            if releases:
                pipeline.zrem(_KEY, *releases)
            for holder, _ in acquires:
                pipeline.evalsha(self._script, 1, _KEY, str(_LIMIT), str(_TTL_MS), holder)
            answers = await pipeline.execute()
            for (_, future), answer in zip(acquires, answers[1 if releases else 0 :], strict=True):
                future.set_result(answer)

    def stop(self) -> None:
        """Lets `run` return. Cancelling it in the middle of a pipeline did not end it, so it is asked."""
        self._stopped = True
        self._something.set()

    async def cycle(self, caller: int, n: int) -> float:
        """One cycle of one caller."""
        holder = f"{caller}.{n}"
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self._acquires.append((holder, answered))
        self._something.set()
        await answered
        waited = time.perf_counter() - began
        self._releases.append(holder)
        self._something.set()
        return waited
