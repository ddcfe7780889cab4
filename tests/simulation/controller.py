"""The control API as the admission server meets it: the real `SyncClient`, with a desk in the place of its database.

It tells limits and accounts, stores what edges saw, and answers a rejected credential with a newer one. A life of it
may be killed, or stand still while a successor takes over; the desk is what every life finds.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from admission_client.errors import AdmissionError
from admission_client.lease import AccountKind, Outcome
from admission_client.policy import AccountPolicy, AccountSignal, AccountStatus, Policy, ResourceSettings
from admission_client.sync import SyncClient
from tests.simulation.network import SimulatedStream
from tests.simulation.world import Machine, World

STAGE_WAIT = 1.0
ACCOUNT_WAIT = 2.0
ACCOUNTS = ("acc_1", "acc_2")
FAMILIES = (
    ResourceSettings(name="accounts/-/streams", limit=3, max_wait=ACCOUNT_WAIT, reserve=1),
    ResourceSettings(name="accounts/-/response_creates", limit=2, max_wait=ACCOUNT_WAIT, max_hold=4.0),
)

Dial = Callable[["Controller"], AbstractAsyncContextManager[SimulatedStream]]


@dataclass
class Desk:
    """What is stored: it outlives every controller."""

    limits: dict[str, int] = field(
        default_factory=lambda: {"lanes/proxy_http": 3, "lanes/proxy_websocket": 2, "stages/response_create": 3}
    )
    versions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ACCOUNTS, 1))
    term: int = 0
    events: dict[str, tuple[int, Outcome]] = field(default_factory=dict)
    """The last status event of each account, with its epoch."""
    counted: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    """Uses that succeeded and that failed, by epoch and account."""

    def policy(self) -> Policy:
        """Returns what is wanted now."""
        return Policy(
            resources=tuple(_settings(name, limit) for name, limit in self.limits.items()) + FAMILIES,
            accounts=tuple(
                AccountPolicy(
                    account_id=account_id,
                    kind=AccountKind.CHATGPT,
                    base_url="https://upstream.example",
                    upstream_account_id="",
                    status=AccountStatus.ACTIVE,
                    access_token=f"token-{version}",
                    credential_version=version,
                )
                for account_id, version in self.versions.items()
            ),
        )


class Controller(Machine):
    """One life of the control API."""

    def __init__(self, world: World, *, number: int, desk: Desk, dial: Dial) -> None:
        super().__init__(world, f"controller/{number}")
        self.desk = desk
        self.stream: SimulatedStream | None = None
        self.closing = asyncio.Event()
        self.closed = False
        self._dial = dial
        self._wanted = asyncio.Event()
        self._wanted.set()
        desk.term = self.term = max(desk.term + 1, int(world.now * 1000))
        self.sync = SyncClient(
            "simulated",
            "control-token",
            self.name,
            self.term,
            on_signals=self._store,
            clock=lambda: world.now,
            source=random.Random(world.random.random()),
            call_timeout=2.0,
            open_stream=self._open_stream,
        )
        self.start(self._live(), name="life")

    def change_limits(self) -> None:
        """Changes a limit, up or down, also below what is held."""
        name = self.world.random.choice(sorted(self.desk.limits))
        self.desk.limits[name] = self.world.random.randrange(1, 5)
        self.world.tell(f"limit of {name} becomes {self.desk.limits[name]}")
        self._wanted.set()

    def kill(self) -> None:
        """Ends the process without a word; the network finds its connections dead."""
        super().kill()
        if self.stream is not None:
            self.stream.break_off()

    async def _live(self) -> None:
        async with self.sync:
            push = asyncio.create_task(self._push())
            await self.closing.wait()
            push.cancel()
            await asyncio.gather(push, return_exceptions=True)
        self.closed = True

    async def _push(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.sync.update(self.desk.policy(), timeout=1.0)
            except AdmissionError as error:
                # It stays wanted; only a controller that was taken over has nothing to say any more.
                self.world.tell(f"{self.name}: {type(error).__name__}")

    async def _store(self, signals: Sequence[AccountSignal]) -> None:
        await asyncio.sleep(self.world.random.uniform(0.0, 0.05))
        if self.desk.term != self.term:
            # The desk belongs to a successor. The real one ends then, because its lock in the database is lost.
            self.closing.set()
            await asyncio.Event().wait()
        for signal in signals:
            # Of what is told twice, or told by an older stream, the later counts have everything.
            key = (signal.epoch, signal.account_id)
            before = self.desk.counted.get(key, (0, 0))
            self.desk.counted[key] = (max(before[0], signal.succeeded), max(before[1], signal.failed))
            event = signal.status_event
            if event is None:
                continue
            self.desk.events[signal.account_id] = (signal.epoch, event.outcome)
            if event.outcome is Outcome.AUTH_REJECTED and event.credential_version == self._version(signal):
                self.desk.versions[signal.account_id] += 1
                self._wanted.set()

    def _version(self, signal: AccountSignal) -> int:
        return self.desk.versions[signal.account_id]

    @asynccontextmanager
    async def _open_stream(self) -> AsyncIterator[SimulatedStream]:
        async with self._dial(self) as stream:
            self.stream = stream
            try:
                yield stream
            finally:
                self.stream = None


def _settings(name: str, limit: int) -> ResourceSettings:
    if name.startswith("lanes/"):
        return ResourceSettings(name=name, limit=limit)
    return ResourceSettings(name=name, limit=limit, max_wait=STAGE_WAIT, max_hold=4.0)
