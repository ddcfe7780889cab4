"""The words of a decision: what an acquire asks for, and how it is answered. Values only; pure.

`Acquire` and `AccountNeeds` are read-only by agreement, not frozen: one is made for every acquire, and freezing doubles
what that costs.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class Reason(enum.StrEnum):
    """Why an acquire was denied. One to one with `DenialReason` in `admission.proto`, which says what each means."""

    LANE_FULL = "lane_full"
    STAGE_FULL = "stage_full"
    ACCOUNT_STREAMS_FULL = "account_streams_full"
    ACCOUNT_RESPONSE_CREATES_FULL = "account_response_creates_full"
    KEY_STREAMS_FULL = "key_streams_full"
    FAIR_SHARE = "fair_share"
    QUEUE_FULL = "queue_full"
    PAUSED = "paused"
    WITHDRAWN = "withdrawn"
    RECOVERING = "recovering"
    DRAINING = "draining"
    SERVER_OVERLOADED = "server_overloaded"
    POLICY_UNAVAILABLE = "policy_unavailable"
    KEY_UNKNOWN = "key_unknown"
    KEY_EXPIRED = "key_expired"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    NO_ACCOUNT = "no_account"
    UNSUPPORTED_BY_ACCOUNT = "unsupported_by_account"
    QUOTA_EXHAUSTED = "quota_exhausted"
    COOLING_DOWN = "cooling_down"
    CREDENTIAL_UNAVAILABLE = "credential_unavailable"
    OWNER_GONE = "owner_gone"
    OWNER_BUSY = "owner_busy"
    SESSION_FULL = "session_full"
    SESSION_STALE = "session_stale"


SENTENCES: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.LANE_FULL: "Every seat of this lane is taken.",
        Reason.STAGE_FULL: "Every seat of this stage was taken for as long as this request may wait.",
        Reason.ACCOUNT_STREAMS_FULL: "Every eligible account runs as many streams as it may.",
        Reason.ACCOUNT_RESPONSE_CREATES_FULL: "Every eligible account creates as many responses as it may.",
        Reason.KEY_STREAMS_FULL: "This API key runs as many streams as it may.",
        Reason.FAIR_SHARE: "This resource is nearly full, and this client holds its fair share of it.",
        Reason.QUEUE_FULL: "The queue for this resource is full.",
        Reason.PAUSED: "An operator has paused this resource.",
        Reason.WITHDRAWN: "This request was released before it was decided.",
        Reason.RECOVERING: "The admission server has restarted and waits for its holders to come back.",
        Reason.DRAINING: "The admission server is stopping.",
        Reason.SERVER_OVERLOADED: "The admission server is too busy to decide in time.",
        Reason.POLICY_UNAVAILABLE: "The admission server has not been told its policy yet.",
        Reason.KEY_UNKNOWN: "No API key has this hash.",
        Reason.KEY_EXPIRED: "This API key has expired.",
        Reason.MODEL_NOT_ALLOWED: "This API key may not use this model.",
        Reason.NO_ACCOUNT: "There is no account that may serve this request.",
        Reason.UNSUPPORTED_BY_ACCOUNT: "No account supports this kind of request or this model.",
        Reason.QUOTA_EXHAUSTED: "Every eligible account has used up its quota.",
        Reason.COOLING_DOWN: "Every eligible account is cooling down.",
        Reason.CREDENTIAL_UNAVAILABLE: "No eligible account has a credential that works at the moment.",
        Reason.OWNER_GONE: "The account that this turn is bound to cannot serve any more.",
        Reason.OWNER_BUSY: "The account that this turn is bound to had no room.",
        Reason.SESSION_FULL: "This session holds as many leases, or has as many acquires waiting, as a session may.",
        Reason.SESSION_STALE: "This session has ended.",
    }
)
"""One sentence for people a reason."""


class EndReason(enum.StrEnum):
    """Why a lease or a session ended. One to one with `EndReason` in `admission_service.proto`."""

    RELEASED = "released"
    EXPIRED = "expired"
    LEAKED = "leaked"
    OVERHELD = "overheld"
    SUPERSEDED = "superseded"
    FORGOTTEN = "forgotten"


@dataclass(slots=True, kw_only=True, eq=False)
class AccountNeeds:
    """What the account of a work acquire must be and may be; see `AccountNeeds` in `admission.proto`."""

    model: str = ""
    kind: str = ""
    """"chatgpt", "api_key", or empty for any."""
    affinity_keys: tuple[str, ...] = ()
    preferred_owner_key: str = ""
    required_owner_key: str = ""
    required_account_id: str = ""
    avoid_account_ids: tuple[str, ...] = ()
    newer_than_credential_version: int = 0
    reattach: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Acquire:
    """A request for seats, granted together or not at all."""

    request_id: str
    resources: tuple[str, ...]
    key_sha256: bytes = b""
    peer: str = ""
    needs: AccountNeeds | None = None
    max_wait: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A decision, and it is no. Nothing was taken."""

    request_id: str
    reason: Reason
    resource: str = ""
    limit: int = 0
    held: int = 0
    waiters: int = 0
    retry_after: float | None = None
    """Seconds; None when trying again without a change elsewhere does not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """No decision: the acquire itself is wrong. `field` names what is wrong in it."""

    request_id: str
    field: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLease:
    """A lease as its holder knows it, claimed in a complete list."""

    lease_id: int
    resource: str
    account_id: str = ""
    request_id: str = ""
    flow: str = ""
    age: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldList:
    """Everything that a holder holds, as of the server's message number `seen`."""

    seen: int
    leases: tuple[HeldLease, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a holder says of itself: how far it has read, and what it holds as of then."""

    sequence: int
    seen: int
    lease_count: int
    lease_digest: int
    held: HeldList | None = None
