"""The admission server: the real servicer, delivery, ledger and translation, over simulated streams.

Only the composition root and the disk are ours: what the registry would have written is kept over restarts, and writing
it takes a moment, as an fsync does.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import grpc

from admission_server.delivery import Delivery
from admission_server.key_usage import KeyUsageBoard
from admission_server.ledger import Ledger, Terms
from admission_server.metrics import LoopLag
from admission_server.policy import AccountPolicy, PolicySettings, PolicySnapshot, ResourceSettings
from admission_server.roles import Role, RoleTokens
from admission_server.servicer import AdmissionServicer
from admission_server.signals import SignalBoard
from admission_server.ticker import Ticker
from tests.simulation.edge import Edge
from tests.simulation.network import Aborted, SimulatedStream
from tests.simulation.world import Machine, World

TERMS = Terms(ttl=3.0, grace=0.4, heartbeat=1.0, park=2.0, session_leases=200, session_waiters=100)
TICK = 0.1
STAGE_WAIT = 1.0
ACCOUNT_WAIT = 2.0


class Epoch(Machine):
    """One life of the server, from start to crash."""

    def __init__(self, world: World, number: int, remembered: dict[str, str]) -> None:
        super().__init__(world, f"server/{number}")
        self.number = number
        self.registered = dict(remembered)
        self.ticked_at = world.now
        self._writing = asyncio.Lock()
        self.ledger = Ledger(
            epoch=number,
            clock=lambda: world.now,
            random=random.Random(world.random.random()),
            terms=TERMS,
            remembered=remembered,
        )
        self.delivery = Delivery(self.ledger, remember=self._remember_soon)
        self.servicer = AdmissionServicer(
            ledger=self.ledger,
            delivery=self.delivery,
            signals=SignalBoard(),
            key_usage=KeyUsageBoard(),
            roles=RoleTokens([(Role.EDGE, "edge-token")]),
            remember=self._remember,
            random=random.Random(world.random.random()),
        )
        self.start(self._tick(), name="ticker")

    def serve(self, stream: SimulatedStream) -> None:
        """Lets the servicer run a stream."""
        stream.handler = self.start(self._serve(stream), name="stream")

    async def _serve(self, stream: SimulatedStream) -> None:
        try:
            await self.servicer.Session(stream.requests(), stream.context)  # type: ignore[arg-type]  # it has what is used
        except (Aborted, asyncio.CancelledError):
            return
        stream.end_by_server(grpc.StatusCode.OK, "", ())

    def _remember_soon(self) -> None:
        self.start(self._remember(), name="remember")

    async def _tick(self) -> None:
        ticker = Ticker(ledger=self.ledger, delivery=self.delivery, lag=LoopLag())
        while True:
            await ticker.tick()
            self.ticked_at = self.world.now
            await asyncio.sleep(TICK)

    async def _remember(self) -> None:
        # As `Registry.save`: one write at a time, of who is there when it begins. A session that is missing since a
        # restart stays registered until it is back or was given up.
        async with self._writing:
            now = {s.session_id: s.instance for s in self.ledger.sessions.values()} | self.ledger.recovering
            await asyncio.sleep(self.world.random.uniform(0.0, 0.01))
            self.registered = now


class Server:
    """The server over its restarts, and the controller that tells it its policy."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.epoch: Epoch | None = None
        self.streams: list[SimulatedStream] = []
        self.limits = {"lanes/proxy_http": 3, "lanes/proxy_websocket": 2, "stages/response_create": 3}
        self.mismatches = 0
        self.leaked = 0
        self._epochs = 0
        self._version = 0
        self._registered: dict[str, str] = {}

    def start(self) -> None:
        """Begins an epoch."""
        self._epochs += 1
        self.world.tell(f"server starts epoch {self._epochs}, remembers {sorted(self._registered)}")
        self.epoch = Epoch(self.world, self._epochs, self._registered)
        self.epoch.call_at(self.world.now + self.world.random.uniform(0.0, 1.0), self._push)

    def crash(self, down_for: float) -> None:
        """Dies, and comes back after a while with nothing but what is on its disk."""
        if self.epoch is not None:
            self._registered = self.epoch.registered
            self.count()
            self.epoch.kill()
            self.epoch = None
            for stream in self.streams:
                stream.break_off()
            self.streams.clear()
            self.world.loop.call_later(down_for, self.start)

    def change_limits(self) -> None:
        """Changes a limit, up or down, also below what is held."""
        name = self.world.random.choice(sorted(self.limits))
        self.limits[name] = self.world.random.randrange(1, 5)
        self.world.tell(f"limit of {name} becomes {self.limits[name]}")
        if self.epoch is not None:
            self.epoch.call_at(self.world.now, self._push)

    def count(self) -> None:
        """Adds up what an epoch has counted, before it is gone."""
        if self.epoch is not None:
            self.mismatches += self.epoch.ledger.mismatches
            self.leaked += sum(n for reason, n in self.epoch.ledger.reclaimed.items() if reason == "leaked")

    @contextlib.asynccontextmanager
    async def dial(self, edge: Edge) -> AsyncIterator[SimulatedStream]:
        """Opens a stream from an edge to whatever epoch there is."""
        if self.epoch is None:
            stream = SimulatedStream(self.world, edge, Machine(self.world, "nobody"), latency=0.005, metadata=())
            stream.break_off()
        else:
            metadata = (("authorization", "Bearer edge-token"),)
            latency = self.world.random.choice([0.001, 0.003, 0.01])
            stream = SimulatedStream(self.world, edge, self.epoch, latency=latency, metadata=metadata)
            self.epoch.serve(stream)
            self.streams.append(stream)
        try:
            yield stream
        finally:
            stream.cancel()
            if stream in self.streams:
                self.streams.remove(stream)

    def _push(self) -> None:
        if self.epoch is None:
            return
        self._version += 1
        resources = tuple(_settings(name, limit) for name, limit in self.limits.items())
        families = (
            ResourceSettings(name="accounts/-/streams", limit=3, max_wait=ACCOUNT_WAIT, reserve=1),
            ResourceSettings(name="accounts/-/response_creates", limit=2, max_wait=ACCOUNT_WAIT, max_hold=4.0),
        )
        accounts = tuple(
            AccountPolicy(account_id=f"acc_{n}", kind="chatgpt", access_token="t", credential_version=1) for n in (1, 2)
        )
        settings = PolicySettings(resources=resources + families)
        self.epoch.ledger.apply_snapshot(PolicySnapshot(version=self._version, settings=settings, accounts=accounts))
        self.epoch.delivery.deliver()


def _settings(name: str, limit: int) -> ResourceSettings:
    if name.startswith("lanes/"):
        return ResourceSettings(name=name, limit=limit)
    return ResourceSettings(name=name, limit=limit, max_wait=STAGE_WAIT, max_hold=4.0)
