"""A process with the real client library, and callers who use it as the edge does.

They take a lane, then work, give parts of it back early, lose patience while they wait, are cancelled in the middle,
and come back for more. What they believe they hold is read from the client itself.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from admission_client.errors import AdmissionError
from admission_client.lease import AccountNeeds, AccountReport, Grant, GrantedAccount, Outcome, TokenUsage
from admission_client.session import AdmissionClient
from tests.simulation.network import SimulatedStream
from tests.simulation.world import Machine, World

LANES = ("lanes/proxy_http", "lanes/proxy_websocket")
WORK = ("stages/response_create", "accounts/-/streams", "accounts/-/response_creates")

Dial = Callable[["Edge"], AbstractAsyncContextManager[SimulatedStream]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Temper:
    """How edges of a scenario behave."""

    callers: int
    hold: float
    """Mean seconds that a turn takes."""
    idle: float
    """Mean seconds between a caller's turns."""
    impatience: float
    """Probability that a caller is cancelled while it waits or works."""


class Edge(Machine):
    """One process. After a kill another `Edge` of the same instance takes its place."""

    def __init__(self, world: World, *, instance: str, incarnation: int, dial: Dial, temper: Temper) -> None:
        super().__init__(world, f"{instance}#{incarnation}")
        self.instance = instance
        self.incarnation = incarnation
        self.temper = temper
        self.stream: SimulatedStream | None = None
        self.resting = False
        self.busy = 0
        self.closed = False
        self.turns = 0
        self.refusals = 0
        self.longest_wait = 0.0
        # More than any real clock: just what TTL and grace allow for.
        self._drift = world.random.uniform(0.9, 1.1)
        self._dial = dial
        self.client = AdmissionClient(
            "simulated",
            "edge-token",
            instance,
            clock=self.clock,
            source=random.Random(world.random.random()),
            unavailable_wait=3.0,
            max_unavailable_waiters=20,
            connect_timeout=2.0,
            open_stream=self._open_stream,
        )
        self.closing = asyncio.Event()
        self.start(self._live(), name="life")

    def clock(self) -> float:
        """This machine's clock: hours off, and fast or slow."""
        return 3600.0 * (self.incarnation + 1) + self.world.now * self._drift

    def kill(self) -> None:
        """Ends the process without a word; the network finds its connections dead."""
        super().kill()
        if self.stream is not None:
            self.stream.break_off()

    async def _live(self) -> None:
        async with self.client:
            callers = [asyncio.create_task(self._call(n)) for n in range(self.temper.callers)]
            await self.closing.wait()
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
        self.closed = True

    @contextlib.asynccontextmanager
    async def _open_stream(self) -> AsyncIterator[SimulatedStream]:
        async with self._dial(self) as stream:
            self.stream = stream
            try:
                yield stream
            finally:
                self.stream = None

    # --- callers

    async def _call(self, number: int) -> None:
        world = self.world
        while self.client.ended is None:
            await world.rest(self.temper.idle)
            if self.resting:
                return
            self.busy += 1
            turn = asyncio.create_task(self._turn(f"10.0.0.{number % 3}"))
            if world.chance(self.temper.impatience):
                await asyncio.wait([turn], timeout=world.random.expovariate(1 / 0.2))
                turn.cancel()
            await asyncio.wait([turn])
            self.busy -= 1
            try:
                await turn
            except AdmissionError:
                self.refusals += 1
            except asyncio.CancelledError:
                if not turn.cancelled():
                    raise

    async def _turn(self, peer: str) -> None:
        world = self.world
        async with self._acquire((world.random.choice(LANES),), peer, None):
            await world.rest(0.01)
            if world.chance(0.3):
                await world.rest(self.temper.hold)
                return
            needs = AccountNeeds(
                reattach=world.chance(0.2),
                required_account_id=world.random.choice(["", "", "", "acc_1"]),
                affinity_keys=(f"thread-{world.random.randrange(4)}",),
            )
            async with self._acquire(WORK, peer, needs) as work:
                await world.rest(self.temper.hold / 3)
                work.release("stages/response_create", "accounts/-/response_creates")
                await world.rest(self.temper.hold)
                self.turns += 1
                if work.account is not None:
                    self._report(work.account)

    def _report(self, account: GrantedAccount) -> None:
        (outcome,) = self.world.random.choices(
            [Outcome.SUCCEEDED, Outcome.TRANSIENT_ERROR, Outcome.RATE_LIMITED, Outcome.AUTH_REJECTED], [90, 4, 4, 2]
        )
        self.client.report(
            AccountReport(
                account_id=account.account_id,
                credential_version=account.credential_version,
                outcome=outcome,
                resets_after=1.0 if outcome is Outcome.RATE_LIMITED else None,
                usage=TokenUsage(input_tokens=1),
            )
        )

    @contextlib.asynccontextmanager
    async def _acquire(self, resources: Sequence[str], peer: str, needs: AccountNeeds | None) -> AsyncIterator[Grant]:
        max_wait = self.world.random.choice([None, None, None, 0.0, 0.3])
        began = self.world.now
        try:
            async with self.client.acquire(resources, peer=peer, account=needs, max_wait=max_wait, label="t") as grant:
                self.longest_wait = max(self.longest_wait, self.world.now - began)
                yield grant
        except AdmissionError:
            self.longest_wait = max(self.longest_wait, self.world.now - began)
            raise
