"""The admission server: its real servicers, delivery, ledger, ticker and registry, over simulated streams.

Only the composition root, the roles and the sockets are ours. The registry writes real files; writing takes a moment of
virtual time, in which the process may die, as one does before, in the middle of, and after an fsync.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1 import control_service_pb2 as control_pb

from admission_server.control_servicer import ControlServicer
from admission_server.delivery import Delivery
from admission_server.key_usage import KeyUsageBoard
from admission_server.ledger import Ledger, Terms
from admission_server.metrics import LoopLag
from admission_server.registry import Registry
from admission_server.roles import Role, RoleTokens
from admission_server.servicer import AdmissionServicer
from admission_server.signals import SignalBoard
from admission_server.ticker import Ticker
from tests.simulation.controller import Controller
from tests.simulation.edge import Edge
from tests.simulation.network import Aborted, SimulatedStream
from tests.simulation.world import Machine, World

TERMS = Terms(ttl=3.0, grace=0.4, heartbeat=1.0, park=2.0, session_leases=200, session_waiters=100)
TICK = 0.1
SESSION_KINDS = (session_pb.SessionRequest, session_pb.SessionResponse)
SYNC_KINDS = (control_pb.SyncRequest, control_pb.SyncResponse)


class Epoch(Machine):
    """One life of the server, from start to crash."""

    def __init__(self, world: World, folder: Path) -> None:
        self._folder = folder
        self._writing = False
        self.registry = Registry.open(folder, aside=self._aside)
        self.number = self.registry.epoch
        super().__init__(world, f"server/{self.number}")
        self.ticked_at = world.now
        self.ledger = Ledger(
            epoch=self.number,
            clock=lambda: world.now,
            random=random.Random(world.random.random()),
            terms=TERMS,
            remembered=self.registry.remembered,
        )
        self.delivery = Delivery(self.ledger, remember=self._remember_soon)
        self.signals = SignalBoard()
        key_usage = KeyUsageBoard()
        self.servicer = AdmissionServicer(
            ledger=self.ledger,
            delivery=self.delivery,
            signals=self.signals,
            key_usage=key_usage,
            roles=RoleTokens([(Role.EDGE, "edge-token")]),
            remember=self._remember,
            random=random.Random(world.random.random()),
        )
        self.control = ControlServicer(
            ledger=self.ledger,
            delivery=self.delivery,
            signals=self.signals,
            key_usage=key_usage,
            version="simulated",
            on_policy=_nothing,
        )
        self.start(self._tick(), name="ticker")

    def serve_session(self, stream: SimulatedStream) -> None:
        """Lets the servicer run a holder's stream."""
        stream.handler = self.start(self._serve(stream, self.servicer.Session), name="session")

    def serve_sync(self, stream: SimulatedStream) -> None:
        """Lets the servicer run a controller's stream."""
        stream.handler = self.start(self._serve(stream, self.control.Sync), name="sync")

    def forget(self, session_id: str) -> None:
        """Lets an operator end a session."""
        self.start(self._forget(session_id), name="forget")

    def kill(self) -> None:
        """Ends the process without a word, perhaps in the middle of a write."""
        super().kill()
        self.registry.close()
        if self._writing:
            (self._folder / "sessions.new").write_text('{"epoch": 7, "sess', encoding="utf-8")

    async def _serve(self, stream: SimulatedStream, method: Callable[..., object]) -> None:
        try:
            await method(stream.requests(), stream.context)  # type: ignore[misc]  # it has what is used
        except (Aborted, asyncio.CancelledError):
            return
        stream.end_by_server(grpc.StatusCode.OK, "", ())

    async def _forget(self, session_id: str) -> None:
        request = control_pb.ForgetSessionRequest(session_id=session_id)
        with contextlib.suppress(_Refused):  # it has ended meanwhile
            await self.control.ForgetSession(request, _Call())  # type: ignore[arg-type]  # it has what is used
        if session_id in self.ledger.sessions or session_id in self.ledger.recovering:
            raise AssertionError(f"{session_id} was forgotten and is still here")

    def _remember_soon(self) -> None:
        self.start(self._remember(), name="remember")

    async def _tick(self) -> None:
        ticker = Ticker(ledger=self.ledger, delivery=self.delivery, lag=LoopLag())
        while True:
            await ticker.tick()
            self.ticked_at = self.world.now
            await asyncio.sleep(TICK)

    async def _remember(self) -> None:
        await self.registry.save(self._open_sessions)

    def _open_sessions(self) -> dict[str, str]:
        return {s.session_id: s.instance for s in self.ledger.sessions.values()} | self.ledger.recovering

    async def _aside(self, write: Callable[[], None]) -> None:
        self._writing = True
        await asyncio.sleep(self.world.random.uniform(0.0, 0.01))
        write()
        self._writing = False
        await asyncio.sleep(self.world.random.uniform(0.0, 0.002))


class Server:
    """The server over its restarts, and how to reach it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.epoch: Epoch | None = None
        self.streams: list[SimulatedStream] = []
        self.mismatches = 0
        self.leaked = 0
        self.forgotten: dict[str, float] = {}
        """Sessions that an operator has ended although their holder lives, and when."""
        self._folder = folder
        # A lost directory begins with an epoch made of the date, and a seed must tell the same story on every day.
        (folder / "sessions.json").write_text(json.dumps({"epoch": 0, "sessions": {}}), encoding="utf-8")

    def start(self) -> None:
        """Begins an epoch."""
        self.epoch = Epoch(self.world, self._folder)
        remembered = sorted(self.epoch.registry.remembered)
        self.world.tell(f"server starts epoch {self.epoch.number}, remembers {remembered}")

    def crash(self, down_for: float) -> None:
        """Dies, and comes back after a while with nothing but what is on its disk."""
        if self.epoch is not None:
            self.count()
            self.epoch.kill()
            self.epoch = None
            for stream in self.streams:
                stream.break_off()
            self.streams.clear()
            self.world.loop.call_later(down_for, self.start)

    def forget(self, session_id: str, *, alive: bool) -> None:
        """Lets an operator end a session, perhaps one whose holder is not gone at all."""
        if self.epoch is not None and not self.epoch.paused:
            self.world.tell(f"an operator ends {session_id}")
            if alive:
                self.forgotten[session_id] = self.world.now
            self.epoch.forget(session_id)

    def count(self) -> None:
        """Adds up what an epoch has counted, before it is gone."""
        if self.epoch is not None:
            self.mismatches += self.epoch.ledger.mismatches
            self.leaked += sum(n for reason, n in self.epoch.ledger.reclaimed.items() if reason == "leaked")

    @contextlib.asynccontextmanager
    async def dial(self, edge: Edge) -> AsyncIterator[SimulatedStream]:
        """Opens a stream from an edge to whatever epoch there is."""
        async with self._connect(edge, SESSION_KINDS, "edge-token") as stream:
            if self.epoch is not None and not stream.over:
                self.epoch.serve_session(stream)
            yield stream

    @contextlib.asynccontextmanager
    async def dial_sync(self, controller: Controller) -> AsyncIterator[SimulatedStream]:
        """Opens a stream from a controller to whatever epoch there is."""
        async with self._connect(controller, SYNC_KINDS, "control-token") as stream:
            if self.epoch is not None and not stream.over:
                self.epoch.serve_sync(stream)
            yield stream

    @contextlib.asynccontextmanager
    async def _connect(self, client: Machine, kinds: tuple[type, type], token: str) -> AsyncIterator[SimulatedStream]:
        latency = self.world.random.choice([0.001, 0.003, 0.01])
        there = self.epoch if self.epoch is not None else Machine(self.world, "nobody")
        metadata = (("authorization", f"Bearer {token}"),)
        stream = SimulatedStream(self.world, client, there, kinds=kinds, latency=latency, metadata=metadata)
        if self.epoch is None:
            stream.break_off()
        else:
            self.streams.append(stream)
        try:
            yield stream
        finally:
            stream.cancel()
            if stream in self.streams:
                self.streams.remove(stream)


class _Refused(Exception):
    """A unary call has ended with a status."""


class _Call:
    """What a unary call's handler uses of its context."""

    async def abort(self, _code: object, details: str, _metadata: object = ()) -> None:
        raise _Refused(details)


async def _nothing() -> None:
    return
