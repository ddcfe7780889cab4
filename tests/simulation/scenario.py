"""One seed: a small world with its troubles, then peace, then the question whether everything came back.

There are edges, the admission server, and one controller after another. Unary calls and TLS are not played here.
"""

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from structlog.testing import capture_logs

from tests.simulation.controller import Controller, Desk
from tests.simulation.edge import Edge, Temper
from tests.simulation.invariants import Broken, Invariants
from tests.simulation.server import TERMS, Server
from tests.simulation.world import World

TROUBLED = 25.0
"""Seconds of trouble."""
LONGEST_TURN = 60.0
PEACE = TERMS.ttl + TERMS.grace + 3 * TERMS.heartbeat


@dataclass
class Outcome:
    """How a seed went."""

    seed: int
    story: str
    problem: str = ""
    tail: tuple[str, ...] = ()
    turns: int = 0
    refusals: int = 0
    checks: int = 0
    longest_wait: float = 0.0


@dataclass
class Scenario:
    """The world of one seed."""

    seed: int
    world: World = field(init=False)
    edges: list[Edge] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World(self.seed)
        self.desk = Desk()
        self.controllers: list[Controller] = []
        # Memory, where there is such a folder: thousands of small files are fsynced.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._folder = tempfile.TemporaryDirectory(prefix="sluicegate-simulation-", dir=memory)
        self.server = Server(self.world, Path(self._folder.name))
        self.invariants = Invariants(self.server, self.edges, self.desk)
        source = self.world.random
        self.temper = Temper(
            callers=source.randrange(1, 6),
            hold=source.choice([0.05, 0.3, 1.5]),
            idle=source.choice([0.1, 0.5]),
            impatience=source.choice([0.0, 0.1, 0.4]),
        )
        # Each seed is calm in some respects and wild in others, so that each kind of trouble is also seen alone.
        self.troubles = {name: source.choice([0.0, 1.0, 4.0]) for name in sorted(_TROUBLES)}

    def play(self) -> Outcome:
        """Plays it from beginning to end."""
        problem = ""
        loop = self.world.loop
        loop.set_exception_handler(self._complain)
        loop.after_turn = self._check
        asyncio.set_event_loop(loop)
        try:
            with capture_logs() as logs:
                loop.run_until_complete(self._story())
            # What both sides catch so as to live on is logged with its exception; here it is a fault.
            problem = next((f"logged: {entry}" for entry in logs if "exc_info" in entry), "")
        except Broken as broken:
            problem = str(broken)
        except TimeoutError:
            problem = "[lost waiter] callers did not come to an end"
        finally:
            with capture_logs():
                self.world.end()
            asyncio.set_event_loop(None)
            if self.server.epoch is not None:
                self.server.epoch.registry.close()
            self._folder.cleanup()
        return Outcome(
            seed=self.seed,
            story=self.world.story,
            problem=problem,
            tail=tuple(self.world.tail),
            turns=sum(edge.turns for edge in self.edges),
            refusals=sum(edge.refusals for edge in self.edges),
            checks=self.invariants.checks,
            longest_wait=max(edge.longest_wait for edge in self.edges),
        )

    async def _story(self) -> None:
        self.server.start()
        self.world.loop.call_later(self.world.random.uniform(0.0, 1.0), self._new_controller)
        for number in range(self.world.random.randrange(1, 4)):
            self._new_edge(f"edge-{number}", 0)
        await self._trouble()
        self.world.tell("peace")
        if self.controllers[-1].gone:
            self._new_controller()
        for edge in self.edges:
            edge.resting = True
        await asyncio.sleep(PEACE)
        async with asyncio.timeout(LONGEST_TURN):
            while any(edge.busy for edge in self.edges if not edge.gone):
                await asyncio.sleep(1.0)
        await asyncio.sleep(PEACE)
        self.invariants.check_rest()
        for edge in self.edges:
            edge.closing.set()
        for controller in self.controllers:
            controller.closing.set()
        await asyncio.sleep(1.0)
        for edge in self.edges:
            if not edge.gone and not edge.closed:
                raise Broken(f"{edge.name} does not end")
        for controller in self.controllers:
            if not controller.gone and not controller.closed:
                raise Broken(f"{controller.name} does not end")
        self.server.count()
        self.invariants.check_history()

    def _new_edge(self, instance: str, incarnation: int) -> None:
        self.edges.append(
            Edge(self.world, instance=instance, incarnation=incarnation, dial=self.server.dial, temper=self.temper)
        )

    def _new_controller(self) -> None:
        number = len(self.controllers)
        self.controllers.append(Controller(self.world, number=number, desk=self.desk, dial=self.server.dial_sync))
        self.world.tell(f"controller {number} takes over with term {self.controllers[-1].term}")

    async def _trouble(self) -> None:
        rate = sum(self.troubles.values())
        names = sorted(self.troubles)
        while self.world.now < TROUBLED:
            await self.world.rest(8.0 / rate if rate else TROUBLED)
            if rate and self.world.now < TROUBLED:
                (name,) = self.world.random.choices(names, [self.troubles[name] for name in names])
                _TROUBLES[name](self)

    # --- troubles

    def break_stream(self) -> None:
        """Breaks one stream, or all of them at once."""
        streams = list(self.server.streams)
        if streams and self.world.chance(0.8):
            streams = [self.world.random.choice(streams)]
        for stream in streams:
            self.world.tell("a stream breaks")
            stream.break_off()

    def stall_stream(self) -> None:
        """Lets nothing through on one stream for a while, perhaps longer than a session lives."""
        if self.server.streams:
            seconds = self.world.random.choice([0.2, 1.0, 2.0, 6.0])
            self.world.tell(f"a stream stalls for {seconds}")
            self.world.random.choice(self.server.streams).stall(seconds)

    def pause_edge(self) -> None:
        """Stops an edge for a while."""
        for edge in self._one_living_edge():
            edge.pause(self.world.random.choice([0.3, 1.5, 5.0]))

    def pause_server(self) -> None:
        """Stops the server for a while."""
        if self.server.epoch is not None:
            self.server.epoch.pause(self.world.random.choice([0.3, 1.5, 5.0]))

    def kill_edge(self) -> None:
        """Kills an edge; it comes back at once, later, or never."""
        for edge in self._one_living_edge():
            edge.kill()
            back_in = self.world.random.choice([0.1, 2.0, 6.0, TROUBLED])
            if self.world.now + back_in < TROUBLED:
                self.world.loop.call_later(back_in, self._new_edge, edge.instance, edge.incarnation + 1)

    def restart_server(self) -> None:
        """Kills the server; it comes back with its registry."""
        self.server.crash(self.world.random.choice([0.1, 0.5, 2.0, 5.0]))

    def change_limits(self) -> None:
        """Changes a limit."""
        if self.controllers and not self.controllers[-1].gone:
            self.controllers[-1].change_limits()

    def kill_controller(self) -> None:
        """Kills the controller; another one starts at once or later."""
        if self.controllers and not self.controllers[-1].gone:
            self.controllers[-1].kill()
            self._next_controller(self.world.random.choice([0.1, 2.0, 6.0]))

    def pause_controller(self) -> None:
        """Stops the controller for a while; perhaps somebody takes over, and it finds out when it goes on."""
        if self.controllers and not self.controllers[-1].gone:
            self.controllers[-1].pause(self.world.random.choice([0.3, 1.5, 5.0]))
            if self.world.chance(0.5):
                self._next_controller(0.2)

    def forget_session(self) -> None:
        """An operator ends a session: of a holder that is gone, or by mistake of one that is not."""
        epoch = self.server.epoch
        if epoch is None:
            return
        living = {edge.client.session_id for edge in self.edges if not edge.gone}
        here = sorted(epoch.ledger.sessions.keys() | epoch.ledger.recovering.keys())
        gone = [session_id for session_id in here if session_id not in living]
        if here and (not gone or self.world.chance(0.3)):
            gone = here
        if gone:
            session_id = self.world.random.choice(gone)
            self.server.forget(session_id, alive=session_id in living)

    def _next_controller(self, after: float) -> None:
        if self.world.now + after < TROUBLED:
            self.world.loop.call_later(after, self._new_controller)

    def _one_living_edge(self) -> list[Edge]:
        living = [edge for edge in self.edges if not edge.gone]
        return [self.world.random.choice(living)] if living else []

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception):
            self.world.failures.append(f"unhandled: {error!r}")

    def _check(self) -> None:
        if self.world.failures:
            raise Broken(self.world.failures[0])
        self.invariants.check()


_TROUBLES = {
    "break a stream": Scenario.break_stream,
    "stall a stream": Scenario.stall_stream,
    "pause an edge": Scenario.pause_edge,
    "pause the server": Scenario.pause_server,
    "kill an edge": Scenario.kill_edge,
    "restart the server": Scenario.restart_server,
    "change a limit": Scenario.change_limits,
    "kill the controller": Scenario.kill_controller,
    "pause the controller": Scenario.pause_controller,
    "forget a session": Scenario.forget_session,
}
