"""Who goes next, and when a refused one should come back. Pure; nothing here waits.

* In a queue the flow with the fewest seats goes next; among equals, the one whose head arrived first (max-min).
* Within a flow it is first come, first served, by arrival: who moves here from another queue keeps its place in time.
* A queue costs O(log flows) a step: heads are kept in a heap whose entries are corrected when they surface.
* Where not everybody can use what becomes free, those who wait stand apart by what they can use (`WaitingRoom`): those
  whom it does not help are not looked at.
"""

import heapq
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sized
from random import Random
from typing import Generic, Protocol, TypeVar

LONGEST_RETRY = 32.0
WINDOW = 10.0
"""Seconds over which releases and refusals are counted."""
EMPTY_QUEUES = 64
"""Queues of a waiting room that are kept for whoever comes next."""
UNOBSERVED_TURN = 30.0
"""Seconds that a seat is taken to be held while no release of its resource was seen."""


class Queued(Protocol):
    """What a queue needs to know of a waiter."""

    seq: int
    flow: str


W = TypeVar("W", bound=Queued)
G = TypeVar("G", bound=Hashable)


class FairQueue(Generic[W]):
    """Those who wait for one thing. `seats` tells how many seats each flow holds: anything with a length, by flow.

    A queue with waiters is in `contested`, so that whoever takes a seat from a flow knows which queues to `touch`.
    """

    __slots__ = ("_best", "_contested", "_left", "_lines", "_order", "_seats", "_waiting")

    def __init__(self, seats: Mapping[str, Sized], contested: "set[FairQueue[W]]") -> None:
        self._seats = seats
        self._contested = contested
        self._waiting: dict[int, W] = {}
        self._lines: dict[str, list[int]] = {}
        self._order: list[tuple[int, int, str]] = []
        self._best: dict[str, tuple[int, int, str]] = {}
        self._left = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def waiters(self) -> list[W]:
        """Returns all of them, by arrival."""
        return [self._waiting[seq] for seq in sorted(self._waiting)]

    def is_crowded(self, flow: str, most: int) -> bool:
        """Returns whether a flow has as many waiters here as it may."""
        # Places of those who left are in the line until they surface, so a long line is counted.
        return len(self._lines.get(flow, ())) >= most and self.count(flow) >= most

    def count(self, flow: str) -> int:
        """Returns how many waiters of a flow are here."""
        return sum(seq in self._waiting for seq in self._lines.get(flow, ()))

    def add(self, waiter: W) -> None:
        """Puts a waiter where its arrival (`seq`) says."""
        self._waiting[waiter.seq] = waiter
        self._contested.add(self)
        heapq.heappush(self._lines.setdefault(waiter.flow, []), waiter.seq)
        self.touch(waiter.flow)

    def remove(self, waiter: W) -> None:
        """Takes a waiter out, wherever it stands. Its place in line is cleared when it surfaces."""
        del self._waiting[waiter.seq]
        if not self._waiting:
            self._contested.discard(self)
            self._lines.clear()
            self._order.clear()
            self._best.clear()
            self._left = 0
            return
        self._left += 1
        if self._left > len(self._waiting) + 64:
            self._rebuild()

    def touch(self, flow: str) -> None:
        """Notes that a flow holds fewer seats than before, or has an older head: it may go earlier now."""
        rank = self._rank(flow)
        if rank is None:
            return
        known = self._best.get(flow)
        if known is None or rank < known:
            self._best[flow] = rank
            heapq.heappush(self._order, rank)

    def head(self) -> W | None:
        """Returns who goes next, without taking it out."""
        order = self._order
        while order:
            entry = order[0]
            flow = entry[2]
            if self._best.get(flow) is not entry:
                heapq.heappop(order)
                continue
            rank = self._rank(flow)
            if rank is None:
                heapq.heappop(order)
                del self._best[flow]
            elif rank != entry:
                self._best[flow] = rank
                heapq.heapreplace(order, rank)
            else:
                return self._waiting[entry[1]]
        return None

    def head_rank(self) -> tuple[int, int]:
        """Returns how early `head()` goes, to compare it with other queues. Call it only when there is one."""
        return self._order[0][:2]

    def _rank(self, flow: str) -> tuple[int, int, str] | None:
        line = self._lines.get(flow)
        if line is None:
            return None
        while line and line[0] not in self._waiting:
            heapq.heappop(line)
        if not line:
            del self._lines[flow]
            return None
        return (len(self._seats.get(flow, ())), line[0], flow)

    def _rebuild(self) -> None:
        # Places of those who left from the middle of a line are cleared together, so that memory follows the living.
        waiting = self.waiters()
        self._lines.clear()
        self._order.clear()
        self._best.clear()
        self._left = 0
        for waiter in waiting:
            self._lines.setdefault(waiter.flow, []).append(waiter.seq)
        for flow in list(self._lines):
            self.touch(flow)


class WaitingRoom(Generic[G, W]):
    """Those who wait for any of several things, in one queue for each group that can use the same of them."""

    __slots__ = ("_make", "_queues")

    def __init__(self, make: Callable[[], FairQueue[W]]) -> None:
        self._make = make
        self._queues: dict[G, FairQueue[W]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def queue(self, group: G) -> FairQueue[W]:
        """Returns the queue of a group, to add somebody to it at once."""
        queue = self._queues.get(group)
        if queue is None:
            if len(self._queues) >= EMPTY_QUEUES:
                self._queues = {known: queue for known, queue in self._queues.items() if queue}
            queue = self._queues[group] = self._make()
        return queue

    def queues(self) -> Iterator[tuple[G, FairQueue[W]]]:
        """Returns the groups with waiters, and their queues."""
        return ((group, queue) for group, queue in list(self._queues.items()) if queue)

    def is_crowded(self, flow: str, most: int) -> bool:
        """Returns whether a flow has as many waiters here as it may."""
        return sum(queue.count(flow) for queue in self._queues.values()) >= most


class Turnover:
    """How fast the seats of a resource come back, and how many were refused lately: two windows, this and the last."""

    __slots__ = ("_last_refused", "_last_released", "_refused", "_released", "_started")

    def __init__(self, now: float) -> None:
        self._started = now
        self._released = self._refused = 0
        self._last_released = self._last_refused = 0

    def released(self, now: float) -> None:
        """Counts a seat that came back."""
        if now - self._started >= WINDOW:
            self._roll(now)
        self._released += 1

    def refused(self, now: float) -> None:
        """Counts a refusal."""
        if now - self._started >= WINDOW:
            self._roll(now)
        self._refused += 1

    def retry_after(self, *, waiting: int, limit: int, now: float, random: Random) -> float:
        """Returns whole seconds, 1 to 32: when a seat should be free for one more, spread so that not all come at once.

        Everybody ahead is served first: those who wait and those who were refused lately and will come back.
        """
        if now - self._started >= WINDOW:
            self._roll(now)
        span = now - self._started + WINDOW
        seen = self._released + self._last_released
        rate = seen / span if seen else max(limit, 1) / UNOBSERVED_TURN
        ahead = waiting + self._refused + self._last_refused + 1
        return spread(ahead / rate, random)

    def _roll(self, now: float) -> None:
        recent = now - self._started < 2 * WINDOW
        self._last_released = self._released if recent else 0
        self._last_refused = self._refused if recent else 0
        self._released = self._refused = 0
        self._started = now


def spread(seconds: float, random: Random) -> float:
    """Returns whole seconds from 1 to 32, uniform over [x, 1.5x + 1], so that those who are refused now do not all come
    back in the same second.
    """
    drawn = random.uniform(seconds, 1.5 * seconds + 1)
    return float(min(LONGEST_RETRY, max(1, math.ceil(drawn))))
