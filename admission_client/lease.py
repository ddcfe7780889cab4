"""What a caller of the admission client handles: needs, grants, denials, reports. No protobuf, no IO.

Durations are seconds as floats. A grant belongs to the block that took it:

    async with admission.acquire(["lanes/proxy_http"], peer="127.0.0.1") as lane:
        ...

Leaving the block releases whatever of the grant is still held, whichever way it is left.
"""

import enum
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol


class AccountKind(enum.StrEnum):
    """What kind of upstream an account talks to."""

    CHATGPT = "chatgpt"
    API_KEY = "api_key"


class DenialReason(enum.StrEnum):
    """Why an acquire was denied; `admission.proto` says what each means. UNKNOWN is one newer than this client."""

    UNKNOWN = "unknown"
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


class Outcome(enum.StrEnum):
    """How a use of an account ended, as far as the account is concerned."""

    SUCCEEDED = "succeeded"
    NEUTRAL = "neutral"
    TRANSIENT_ERROR = "transient_error"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    AUTH_REJECTED = "auth_rejected"
    ACCOUNT_DISABLED = "account_disabled"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountNeeds:
    """What the account of a work acquire must be and may be; all empty: any active account."""

    model: str = ""
    kind: AccountKind | None = None
    affinity_keys: tuple[str, ...] = ()
    preferred_owner_key: str = ""
    required_owner_key: str = ""
    required_account_id: str = ""
    avoid_account_ids: tuple[str, ...] = ()
    newer_than_credential_version: int = 0
    reattach: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedAccount:
    """The account that a grant came with. `access_token` is a secret and stays out of `repr`."""

    account_id: str
    kind: AccountKind
    base_url: str
    upstream_account_id: str = ""
    access_token: str = field(default="", repr=False)
    credential_version: int = 0
    owner_moved: bool = False
    streams_held: int = 0
    private_upstream: bool = False
    """Whether the upstream may be at a private, loopback or link-local address, and may be spoken to without TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Who refused, why, and for how long."""

    reason: DenialReason
    resource: str = ""
    limit: int = 0
    held: int = 0
    waiters: int = 0
    retry_after: float | None = None
    """Seconds; None when trying again without a change elsewhere does not help."""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Tokens of one response, or of many."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitWindow:
    """One rate limit window of an account, known by its length in seconds."""

    length: float
    used_percent: float
    resets_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credits:
    """Pay-as-you-go credits of an account."""

    has_credits: bool = False
    unlimited: bool = False
    balance: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountReport:
    """What a holder has seen of an account; see `AccountReport` in `admission.proto`."""

    account_id: str
    credential_version: int = 0
    outcome: Outcome | None = None
    status: int = 0
    code: str = ""
    resets_after: float | None = None
    usage: TokenUsage | None = None
    windows: tuple[RateLimitWindow, ...] = ()
    credits: Credits | None = None
    owned_keys: tuple[str, ...] = ()
    key_sha256: bytes = b""


class Grant(Protocol):
    """Seats that are held. Made by `Admission.acquire`; ends with the block that took it."""

    @property
    def resources(self) -> tuple[str, ...]:
        """Full names of the resources still held, account and key ids filled in."""

    @property
    def account(self) -> GrantedAccount | None:
        """The account that was selected, when one was asked for."""

    @property
    def key_id(self) -> str:
        """Id of the client's API key; empty without one."""

    @property
    def live(self) -> bool:
        """Whether something new may be started on it: false once the session has lapsed or the lease has ended."""

    def release(self, *families: str) -> None:
        """Gives seats back now, without waiting: those named as in the acquire ("stages/response_create",
        "accounts/-/response_creates"), or all of them when none is named. Releasing twice is fine.
        """


class Admission(Protocol):
    """What the edge and the control API need of the admission server. `AdmissionClient` asks the real one over gRPC,
    `MemoryAdmission` is its twin for tests.
    """

    def acquire(
        self,
        resources: Sequence[str],
        *,
        key_sha256: bytes | None = None,
        peer: str | None = None,
        account: AccountNeeds | None = None,
        max_wait: float | None = None,
        label: str = "",
    ) -> AbstractAsyncContextManager[Grant]:
        """Takes one seat of each resource, all or none, in the order in which to wait for them.

        `label` (a request id) becomes part of the acquire's request id, so that `ListLeases` can be read.
        Entering the block raises `Denied`, `AdmissionUnavailable`, `AcquireRejected` or `SessionSuperseded`.
        Cancellation while waiting withdraws the acquire.
        """

    def report(self, report: AccountReport) -> None:
        """Tells the server what was seen of an account: without waiting, merged and bounded while it is away."""

    @property
    def ready(self) -> bool:
        """Whether there is a session now and a policy has been in force in it."""
