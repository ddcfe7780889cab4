"""Virtual time, machines and chance.

`VirtualLoop` is asyncio's own loop, but it never sleeps: when nothing is ready, time jumps to the next timer. Each task
belongs to a `Machine`, found through a context variable; tasks of a machine that is paused wait, and those of one that
is gone never run again, not even their `finally`: that is what `kill -9` does.
"""

import asyncio
import hashlib
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

_HERE: ContextVar["Machine | None"] = ContextVar("machine", default=None)


class Machine:
    """A process."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.paused = False
        self.gone = False
        self.steps = 0
        self.missed: list[asyncio.Handle] = []
        world.machines.append(self)
        self.context: Context = copy_context()
        self.context.run(_HERE.set, self)

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> "asyncio.Task[None]":
        """Runs something in this process."""
        task = self.world.loop.create_task(work, name=f"{self.name}: {name}", context=self.context)
        task.add_done_callback(self.world.note_failure)
        return task

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Lets something happen in this process at a time."""
        self.world.loop.call_at(when, action, context=self.context)

    def pause(self, seconds: float) -> None:
        """Stops the process for a while, as SIGSTOP or a slow disk does."""
        if not self.paused and not self.gone:
            self.world.tell(f"{self.name} is paused for {seconds:.2f}")
            self.paused = True
            self.world.loop.call_later(seconds, self._resume)

    def kill(self) -> None:
        """Ends the process without a word."""
        self.world.tell(f"{self.name} is killed")
        self.gone = True

    def let_go(self) -> None:
        """Lets what is left of the process run to its end, after the world's own."""
        self.paused = self.gone = False
        self.world.loop.ready_again(self.missed)
        self.missed = []

    def _resume(self) -> None:
        if self.gone:
            return
        self.world.tell(f"{self.name} goes on")
        self.paused = False
        self.world.loop.ready_again(self.missed)
        self.missed = []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps. `after_turn` is called after each turn of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0
        self.after_turn: Callable[[], None] | None = None
        super().__init__(_Jumping(self))
        self._ready = _Gate(self)

    def time(self) -> float:
        """Returns the virtual time."""
        return self.now

    def ready_again(self, handles: list[asyncio.Handle]) -> None:
        """Runs what a paused machine has missed, in the order in which it came."""
        self._ready.extend(handles)

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]  # asyncio's own, the same in 3.11 to 3.14
        self.turns += 1
        if self.after_turn is not None:
            self.after_turn()


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: where another selector would sleep, time moves on."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen again")
        if timeout > 0:
            # asyncio runs timers that are due within its clock's resolution: a hair more, so that we never stand still
            self._loop.now += timeout + 1e-9
        return []


class _Gate(deque[asyncio.Handle]):
    """What is ready to run. Handles of machines that are paused or gone are put aside on their way out."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._nothing = asyncio.Handle(lambda: None, (), loop)
        self._nothing.cancel()

    def popleft(self) -> asyncio.Handle:
        handle = super().popleft()
        machine = handle._context.get(_HERE)  # type: ignore[attr-defined]  # where asyncio keeps it
        if machine is None:
            return handle
        if not (machine.paused or machine.gone):
            machine.steps += 1
            return handle
        machine.missed.append(handle)
        return self._nothing


class World:
    """One simulated world. `story` is a digest of everything that was told."""

    def __init__(self, seed: int) -> None:
        self.loop = VirtualLoop()
        self.random = random.Random(seed)
        self.machines: list[Machine] = []
        self.failures: list[str] = []
        self.tail: deque[str] = deque(maxlen=300)
        self._story = hashlib.sha256()

    @property
    def now(self) -> float:
        """The virtual time in seconds."""
        return self.loop.now

    def tell(self, what: str) -> None:
        """Adds a line to the story."""
        line = f"{self.now:9.4f} {what}"
        self.tail.append(line)
        self._story.update(line.encode())

    @property
    def story(self) -> str:
        """The digest of the story so far."""
        return self._story.hexdigest()

    def chance(self, probability: float) -> bool:
        """Returns whether something improbable happens."""
        return self.random.random() < probability

    def note_failure(self, task: "asyncio.Task[None]") -> None:
        """Remembers that something in a machine has ended with an error nobody expected."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(f"{task.get_name()}: {error!r}")

    def end(self) -> None:
        """Ends the world: every task is cancelled, also those of machines that are gone, and seen to end."""
        self.loop.after_turn = None
        self.loop.set_exception_handler(lambda _loop, _context: None)
        for machine in self.machines:
            machine.let_go()
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    async def rest(self, mean: float) -> None:
        """Sleeps for a time that is often short and sometimes long."""
        await asyncio.sleep(self.random.expovariate(1 / mean))
