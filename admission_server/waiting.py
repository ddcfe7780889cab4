"""An acquire that has no answer yet, and what it is told when the answer is no. Pure.

A refusal says who refused (reason and resource), by how much (limit, seats held, waiters ahead), and when to try again:
the real time where it is known, else a time computed from how fast seats come back.
"""

import math
from random import Random

from admission_server.accounts import NEVER
from admission_server.catalogue import Key, Shape
from admission_server.decisions import Acquire, Denied, Reason
from admission_server.queueing import FairQueue, spread
from admission_server.resources import Family, Resource
from admission_server.selection import Pool
from admission_server.sessions import Session

COMPUTED = frozenset(
    {
        Reason.LANE_FULL,
        Reason.STAGE_FULL,
        Reason.ACCOUNT_STREAMS_FULL,
        Reason.ACCOUNT_RESPONSE_CREATES_FULL,
        Reason.KEY_STREAMS_FULL,
        Reason.FAIR_SHARE,
        Reason.QUEUE_FULL,
        Reason.OWNER_BUSY,
    }
)
"""Reasons whose `retry_after` follows from how fast seats come back."""
SOON = {
    Reason.PAUSED: 15.0,
    Reason.DRAINING: 1.0,
    Reason.SERVER_OVERLOADED: 2.0,
    Reason.POLICY_UNAVAILABLE: 2.0,
    Reason.CREDENTIAL_UNAVAILABLE: 5.0,
    Reason.COOLING_DOWN: 1.0,
    Reason.QUOTA_EXHAUSTED: 20.0,
    Reason.SESSION_FULL: 1.0,
    Reason.SESSION_STALE: 1.0,
}
"""About when to come back, where nothing can be computed."""


_NOTHING = Shape()
"""What every waiter asks for until it is looked up."""


class Waiter:
    """An acquire that has no answer yet: where it waits (`at`, None when it is put aside), and until when."""

    __slots__ = ("acquire", "arrived", "at", "deadline", "flow", "key", "queue", "seq", "session", "shape")

    def __init__(self, seq: int, session: Session, acquire: Acquire, arrived: float) -> None:
        self.seq = seq
        self.session = session
        self.acquire = acquire
        self.arrived = arrived
        self.deadline = NEVER
        self.flow = ""
        self.key: Key | None = None
        self.shape = _NOTHING
        self.at: Resource | Pool | None = None
        self.queue: FairQueue[Waiter] | None = None

    @property
    def is_hard(self) -> bool:
        """Whether one account will do and no other."""
        needs = self.acquire.needs
        return needs is not None and bool(needs.required_account_id or needs.required_owner_key)

    @property
    def reattaches(self) -> bool:
        """Whether it may take a seat that is kept for turns that reattach."""
        needs = self.acquire.needs
        return needs is not None and (needs.reattach or self.is_hard)


def refusal(
    waiter: Waiter,
    reason: Reason,
    *,
    at: Resource | Pool | None,
    until: float,
    now: float,
    random: Random,
) -> Denied:
    """Returns the answer no. `until` is when the reason is over, where that is known."""
    name, limit, held, waiting = _figures(at)
    retry_after: float | None = None
    if until < NEVER:
        retry_after = float(max(1, math.ceil(until - now)))
    elif reason in COMPUTED and at is not None:
        retry_after = at.turnover.retry_after(waiting=waiting, limit=limit, now=now, random=random)
        at.turnover.refused(now)
    elif reason in SOON:
        retry_after = spread(SOON[reason], random)
    return Denied(
        request_id=waiter.acquire.request_id,
        reason=reason,
        resource=name,
        limit=limit,
        held=held,
        waiters=waiting,
        retry_after=retry_after,
    )


def family_of(at: Resource | Pool | None) -> Family | None:
    """Returns the family that a refusal is counted for."""
    if isinstance(at, Pool):
        return at.blocking_family()
    return at.family if at is not None else None


def _figures(at: Resource | Pool | None) -> tuple[str, int, int, int]:
    """Returns name, limit, seats held and waiters of what an acquire was denied for."""
    if at is None:
        return ("", 0, 0, 0)
    if isinstance(at, Resource):
        return (at.name, at.settings.limit, len(at.leases), at.waiting)
    return (*at.figures(), len(at.room))
