"""What happened in the ledger that others than its holders should know: for logs and for closing streams. Pure."""

from dataclasses import dataclass

from admission_server.decisions import Denied, EndReason
from admission_server.resources import Lease
from admission_server.sessions import Session


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A session is over."""

    session: Session
    reason: EndReason
    reclaimed: int


@dataclass(frozen=True, slots=True)
class LeaseReclaimed:
    """A lease ended although its session lives: leaked or overheld."""

    lease: Lease
    reason: EndReason
    held_for: float


@dataclass(frozen=True, slots=True)
class Refused:
    """An acquire was denied."""

    session: Session
    denied: Denied


@dataclass(frozen=True, slots=True)
class Resynced:
    """The books of both sides differed and were compared in full."""

    session: Session
    leaked: int
    adopted: int
    dropped: int


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A session that was missing since the restart is not waited for any more."""

    session_id: str


Event = SessionEnded | GivenUp | LeaseReclaimed | Refused | Resynced
