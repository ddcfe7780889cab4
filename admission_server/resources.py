"""Resources, the leases on them, and the families they belong to. Pure.

A resource is anything with a limit on seats: a lane, a stage, an account's streams, a key's streams. Held seats are the
leases themselves (`len(resource.leases)`): there is no counter that could drift or go negative.
"""

import enum
import sys
from bisect import bisect_left
from typing import TYPE_CHECKING

from admission_server.decisions import Reason
from admission_server.policy import ResourceSettings
from admission_server.queueing import FairQueue, Turnover

if TYPE_CHECKING:
    from admission_server.accounts import Account, Credential
    from admission_server.sessions import Session
    from admission_server.waiting import Waiter

DEFAULT_QUEUE_LIMIT = 1_000
SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
NO_LIMIT = sys.maxsize


class Kind(enum.Enum):
    """What a resource is a limit of."""

    LANE = "lanes"
    STAGE = "stages"
    ACCOUNT = "accounts"
    KEY = "keys"


_FULL = {
    "accounts/-/streams": Reason.ACCOUNT_STREAMS_FULL,
    "accounts/-/response_creates": Reason.ACCOUNT_RESPONSE_CREATES_FULL,
    "keys/-/streams": Reason.KEY_STREAMS_FULL,
}


class Histogram:
    """Durations in seconds, by upper bound; the last count is of everything longer than the last bound."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one duration."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


class Holdings:
    """Which seats each flow holds, and the queues in which that decides who goes next."""

    __slots__ = ("contested", "flows")

    def __init__(self) -> None:
        self.flows: dict[str, set[Lease]] = {}
        self.contested: set[FairQueue[Waiter]] = set()

    def queue(self) -> "FairQueue[Waiter]":
        """Returns a new queue that goes by these holdings."""
        return FairQueue(self.flows, self.contested)

    def add(self, lease: "Lease") -> None:
        """Counts a lease for its flow."""
        seats = self.flows.get(lease.grant.flow)
        if seats is None:
            self.flows[lease.grant.flow] = {lease}
        else:
            seats.add(lease)

    def remove(self, lease: "Lease") -> None:
        """Takes a lease from its flow, which may go earlier now."""
        flow = lease.grant.flow
        seats = self.flows[flow]
        seats.discard(lease)
        if not seats:
            del self.flows[flow]
        for queue in self.contested:
            queue.touch(flow)


class Family:
    """Resources of one name but for the id in it. A lane or a stage is a family of one.

    Accounts of a family share `holdings`: how many seats a flow holds over all accounts decides whose turn it is.
    """

    __slots__ = ("defaults", "denied", "full_reason", "granted", "holdings", "holds", "kind", "name", "waits")

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = Kind(name.partition("/")[0])
        self.defaults = ResourceSettings(name=name)
        self.full_reason = _FULL.get(name, Reason.LANE_FULL if self.kind is Kind.LANE else Reason.STAGE_FULL)
        self.holdings = Holdings()
        self.granted = 0
        self.denied: dict[Reason, int] = {}
        self.waits = Histogram()
        self.holds = Histogram()

    @property
    def queue_limit(self) -> int:
        """How many acquires may wait at once for any of the family."""
        return self.defaults.queue_limit or DEFAULT_QUEUE_LIMIT


class Resource:
    """One limit on seats.

    `ceilings` is what a grant compares with: at or above `ceilings[0]` seats an ordinary acquire gets none, at or above
    `ceilings[1]` none that reattaches. From `fair_from` seats on, flows are held to their share.
    """

    __slots__ = (
        "account",
        "ceilings",
        "fair_from",
        "family",
        "holdings",
        "leases",
        "name",
        "queues",
        "settings",
        "turnover",
    )

    def __init__(self, name: str, family: Family, *, now: float, account: "Account | None" = None) -> None:
        self.name = name
        self.family = family
        self.account = account
        self.leases: dict[int, Lease] = {}
        self.holdings = family.holdings if family.kind is Kind.ACCOUNT else Holdings()
        self.queues = (self.holdings.queue(), self.holdings.queue())
        self.turnover = Turnover(now)
        self.settings = ResourceSettings(name=name)
        self.configure(self.settings, fair_share_threshold_percent=0)

    def configure(self, settings: ResourceSettings, *, fair_share_threshold_percent: int) -> None:
        """Puts settings in force. What is held stays held."""
        limit, reserve = settings.limit, settings.reserve
        self.settings = settings
        if settings.paused:
            self.ceilings = (0, 0)
        elif not limit:
            self.ceilings = (NO_LIMIT, NO_LIMIT)
        else:
            # A reserve never takes the last seat: with a limit of one everybody may have it.
            self.ceilings = (max(1, limit - reserve), limit)
        # Accounts are a pool, whose queue goes by flow already.
        shared = (
            limit and not settings.max_wait and fair_share_threshold_percent and self.family.kind is not Kind.ACCOUNT
        )
        self.fair_from = -(-limit * fair_share_threshold_percent // 100) if shared else NO_LIMIT

    @property
    def max_wait(self) -> float:
        """How long an acquire may wait for a seat."""
        return self.settings.max_wait

    @property
    def queue_limit(self) -> int:
        """How many acquires may wait for it at once."""
        return self.settings.queue_limit or DEFAULT_QUEUE_LIMIT

    @property
    def overdraft(self) -> int:
        """Seats above the limit: claimed again after a lapse, or from before the limit was lowered."""
        limit = self.settings.limit
        return max(0, len(self.leases) - limit) if limit else 0

    @property
    def waiting(self) -> int:
        """How many acquires wait for it."""
        return len(self.queues[0]) + len(self.queues[1])

    def has_room(self, *, reattach: bool) -> bool:
        """Returns whether one more seat may be granted."""
        return len(self.leases) < self.ceilings[reattach]

    def exceeds_share(self, flow: str) -> bool:
        """Returns whether a flow holds its fair share already, now that the resource is nearly full."""
        held = len(self.holdings.flows.get(flow, ()))
        active = len(self.holdings.flows) + (0 if held else 1)
        return held >= max(2, self.settings.limit // active)


class Granted:
    """A yes: leases, and the account that was selected. A session remembers it until all its leases have ended.

    `number` is the server's message that carries it, 0 until it was put into one.
    """

    __slots__ = (
        "account",
        "account_id",
        "adopted",
        "confirmed",
        "credential",
        "flow",
        "granted_at",
        "key_id",
        "leases",
        "number",
        "open_leases",
        "owner_moved",
        "request_id",
        "streams_held",
    )

    def __init__(self, request_id: str, flow: str, granted_at: float) -> None:
        self.request_id = request_id
        self.flow = flow
        self.granted_at = granted_at
        self.leases: list[Lease] = []
        self.open_leases = 0
        self.number = 0
        self.confirmed = False
        self.adopted = False
        self.account: Account | None = None
        self.account_id = ""
        self.credential: Credential | None = None
        self.owner_moved = False
        self.streams_held = 0
        self.key_id = ""


class Lease:
    """One seat that is taken. `grant` says by which acquire, `ended` whether it still is."""

    __slots__ = ("ended", "grant", "lease_id", "overdraft", "resource", "session")

    def __init__(self, lease_id: int, resource: Resource, session: "Session", grant: Granted) -> None:
        self.lease_id = lease_id
        self.resource = resource
        self.session = session
        self.grant = grant
        self.ended = False
        self.overdraft = False

    def __repr__(self) -> str:
        return f"<Lease {self.lease_id:#x} on {self.resource.name}>"
