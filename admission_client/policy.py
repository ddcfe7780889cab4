"""What the control API tells the admission server, and hears from it, as plain values. Durations are seconds.

A policy is state, not a message: `sync.SyncClient` is given the whole of it whenever something has changed, and finds
out itself whether a delta will do.
"""

import enum
from dataclasses import dataclass, field

from admission_client.lease import AccountKind, Credits, Outcome, RateLimitWindow, TokenUsage


class AccountStatus(enum.StrEnum):
    """Whether an account may serve."""

    ACTIVE = "active"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    PAUSED = "paused"
    REAUTH_REQUIRED = "reauth_required"
    DEACTIVATED = "deactivated"


class SelectionStrategy(enum.StrEnum):
    """How to pick among the accounts that could serve."""

    CAPACITY_WEIGHTED = "capacity_weighted"
    ROUND_ROBIN = "round_robin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSettings:
    """Settings of one resource ("lanes/proxy_http") or of one family ("accounts/-/streams")."""

    name: str
    limit: int
    max_wait: float = 0.0
    queue_limit: int = 0
    max_hold: float = 0.0
    paused: bool = False
    reserve: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPolicy:
    """One account as the admission server knows it. `access_token` is a secret and stays out of `repr`.

    `blocked_until` and `credential_expires_at` are readings of the monotonic clock of this process; they travel as
    durations.
    """

    account_id: str
    kind: AccountKind
    base_url: str
    upstream_account_id: str = ""
    status: AccountStatus = AccountStatus.ACTIVE
    blocked_until: float | None = None
    access_token: str = field(default="", repr=False)
    credential_version: int = 0
    credential_expires_at: float | None = None
    refreshed_at: float | None = None
    plan: str = ""
    models: tuple[str, ...] = ()
    weight: float = 1.0
    caps: tuple[ResourceSettings, ...] = ()
    private_upstream: bool = False
    """Whether its upstream may be at a private, loopback or link-local address, and may be spoken to without TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """One API key as the admission server knows it. `expires_at` is a reading of the monotonic clock."""

    key_id: str
    key_sha256: bytes = field(repr=False)
    expires_at: float | None = None
    models: tuple[str, ...] = ()
    account_ids: tuple[str, ...] = ()
    max_streams: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything the admission server needs to decide."""

    resources: tuple[ResourceSettings, ...] = ()
    accounts: tuple[AccountPolicy, ...] = ()
    keys: tuple[KeyPolicy, ...] = ()
    fair_share_threshold_percent: int = 80
    strategy: SelectionStrategy = SelectionStrategy.CAPACITY_WEIGHTED


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusEvent:
    """Something that may change an account's status. Ages and durations are seconds as of arrival."""

    outcome: Outcome
    credential_version: int
    status: int
    code: str
    resets_after: float | None
    age: float
    refresh_wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySignal:
    """What one API key has used; counters are cumulative in `epoch`."""

    epoch: int
    sequence: int
    key_id: str
    succeeded: int
    failed: int
    usage: TokenUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSignal:
    """The latest that edges saw of one account; counters are cumulative in `epoch`."""

    epoch: int
    sequence: int
    account_id: str
    status_event: StatusEvent | None = None
    windows: tuple[RateLimitWindow, ...] = ()
    credits: Credits | None = None
    windows_age: float = 0.0
    succeeded: int = 0
    failed: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)
