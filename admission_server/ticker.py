"""Lets the ledger's time go by, several times a second.

* Before a session is ended for its silence, what may have arrived from it already is read: a loop that was late has not
  seen it yet, however long it lies there. That delays an end by `READ_WITHIN` and a few turns of the loop, and nothing
  else.
* How late the loop runs is measured here, and tells the ledger when to refuse.
"""

import asyncio

from admission_server.delivery import Delivery
from admission_server.ledger import Ledger
from admission_server.metrics import LoopLag

TICK = 0.05
VERY_LATE = 1.0
"""How late the loop may run before acquires are refused."""
READ_WITHIN = 0.02
"""For gRPC's own threads, which take bytes from sockets: they need no turn of the loop, but some time."""
READ_TURNS = 8
"""Turns of the loop from a message that gRPC has to one that the ledger has heard, with some to spare."""


class Ticker:
    """Ticks until it is cancelled. Without it no seat is ever taken back: who runs it must notice when it ends."""

    def __init__(self, *, ledger: Ledger, delivery: Delivery, lag: LoopLag) -> None:
        self._ledger = ledger
        self._delivery = delivery
        self._lag = lag

    async def run(self) -> None:
        """Ticks for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time() + TICK
        while True:
            await asyncio.sleep(due - loop.time())
            now = loop.time()
            self._lag.note(max(0.0, now - due), now)
            self._ledger.overloaded = self._lag.current > VERY_LATE
            await self.tick()
            due = loop.time() + TICK

    async def tick(self) -> None:
        """Does what is due."""
        now = self._ledger.now()
        if self._ledger.has_silent_sessions(now):
            await asyncio.sleep(READ_WITHIN)
            for _ in range(READ_TURNS):
                await asyncio.sleep(0)
        self._ledger.tick(read_at=now)
        self._delivery.deliver()
