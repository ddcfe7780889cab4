"""One account as the admission server knows it: whether it may serve, and what reports do to that. Pure.

The controller's word (`AccountPolicy`) says what the account is; what edges report is applied on top of it at once:

* a rate limit or used-up quota blocks it until its reset; three transient errors block it for 30 s, doubling to 300 s;
* a rejected credential version is never granted again; its first rejection asks for one refresh. When a refresh cannot
  help (an `api_key` account, or a version obtained less than 10 minutes ago), a permanent code means that somebody must
  sign in again, any other that the account has no credential for 300 s. When the same version served another request
  within the last 10 s, the rejection was that request's fault and the account stays as it is;
* what an edge reported ends with its time, with a newer credential, or with the controller's next word after it has
  acknowledged the report.
"""

import enum
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from admission_server.policy import AccountPolicy, Status

if TYPE_CHECKING:
    from admission_server.resources import Resource
    from admission_server.selection import Pool

NEVER = math.inf
AUTH_COOLDOWN = 300.0
MISCONFIGURED_COOLDOWN = 300.0
RECENT_SUCCESS = 10.0
REFRESH_EVERY = 600.0
TRANSIENT_ERRORS = 3
TRANSIENT_BLOCK, LONGEST_TRANSIENT_BLOCK = 30.0, 300.0
BURST_BLOCK, LONGEST_BURST_BLOCK = 2.0, 60.0
"""A 429 that names no time is a refusal of a burst, not of a quota: most such accounts serve again within seconds."""
QUOTA_BLOCK = 3600.0
LONGEST_BLOCK = 366 * 86400.0
LONG_RATE_LIMIT = 300.0
"""A rate limit for longer than this is a used-up usage window, and refusals say so."""
LEAST_WEIGHT = 1e-6
MOST_TOKENS = 2**64 - 1

PERMANENT_CODES = frozenset(
    {
        "account_auth_invalidated",
        "account_session_expired",
        "app_session_terminated",
        "invalid_grant",
        "invalid_refresh_token",
        "refresh_token_expired",
        "refresh_token_invalidated",
        "refresh_token_reused",
        "token_invalidated",
    }
)
"""Codes after which only a new sign-in helps."""


class Outcome(enum.StrEnum):
    """How a use of an account ended. One to one with `Outcome` in `admission.proto`."""

    UNSPECIFIED = "unspecified"
    SUCCEEDED = "succeeded"
    NEUTRAL = "neutral"
    TRANSIENT_ERROR = "transient_error"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    AUTH_REJECTED = "auth_rejected"
    ACCOUNT_DISABLED = "account_disabled"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Tokens of one response, or of many."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        """Returns the sum, which stops at what a message can carry."""
        return TokenUsage(
            input_tokens=min(self.input_tokens + other.input_tokens, MOST_TOKENS),
            cached_input_tokens=min(self.cached_input_tokens + other.cached_input_tokens, MOST_TOKENS),
            output_tokens=min(self.output_tokens + other.output_tokens, MOST_TOKENS),
            reasoning_tokens=min(self.reasoning_tokens + other.reasoning_tokens, MOST_TOKENS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitWindow:
    """One rate limit window, known by its length in seconds."""

    length: float
    used_percent: float
    resets_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credits:
    """Pay-as-you-go credits."""

    has_credits: bool = False
    unlimited: bool = False
    balance: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a holder has seen of an account."""

    account_id: str
    credential_version: int = 0
    outcome: Outcome = Outcome.UNSPECIFIED
    status: int = 0
    code: str = ""
    resets_after: float | None = None
    usage: TokenUsage | None = None
    windows: tuple[RateLimitWindow, ...] = ()
    credits: Credits | None = None
    owned_keys: tuple[str, ...] = ()
    key_sha256: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a report means for the account: whether the controller should know, and whether a refresh is asked for."""

    concerns_status: bool = False
    refresh_wanted: bool = False


NOTHING = Verdict()
TELL = Verdict(concerns_status=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a grant carries to the role `edge`."""

    version: int
    access_token: str = field(repr=False)
    expires_at: float
    obtained_at: float | None
    """When it was exchanged, as far as the controller says so; else when it replaced an older version. None for the
    first that we were told: it may be of any age."""


class Standing(enum.Enum):
    """Whether an account may serve now, and why not."""

    SERVING = "serving"
    COOLING = "cooling"
    QUOTA = "quota"
    NO_CREDENTIAL = "no_credential"
    OUT = "out"


_OUT = frozenset({Status.PAUSED, Status.REAUTH_REQUIRED, Status.DEACTIVATED})
_BLOCKED = {Status.RATE_LIMITED: Standing.COOLING, Status.QUOTA_EXCEEDED: Standing.QUOTA}


class Account:
    """One account's standing: the controller's word and, on top of it, what edges have reported since."""

    __slots__ = (
        "account_id",
        "block",
        "blocked_until",
        "bursts",
        "credential",
        "last_picked",
        "last_success",
        "models",
        "policy",
        "policy_blocked_until",
        "pools",
        "quarantine",
        "rejected_version",
        "resources",
        "serving",
        "transient_errors",
        "weight",
    )

    def __init__(self, policy: AccountPolicy, now: float) -> None:
        self.account_id = policy.account_id
        self.policy = policy
        self.models = frozenset(policy.models)
        self.weight = max(policy.weight, LEAST_WEIGHT)
        self.policy_blocked_until = _blocked_until(policy, now)
        self.credential = _credential(policy, now, obtained_at=None)
        self.rejected_version = 0
        self.last_success = (0, -NEVER)
        self.block = Standing.COOLING
        self.blocked_until = -NEVER
        self.quarantine: Status | None = None
        self.transient_errors = 0
        self.bursts = 0
        # Kept for selection: its resources by family, whether it serves, when it was picked, the pools it is in.
        self.resources: dict[str, Resource] = {}
        self.serving = False
        self.last_picked = 0
        self.pools: list[Pool] = []

    def revise(self, policy: AccountPolicy, now: float, *, acknowledged: bool) -> None:
        """Takes the controller's new word. `acknowledged`: it has stored all that edges reported of this account,
        so that its word overrules what we made of the reports.
        """
        newer = policy.credential_version > (
            self.credential.version if self.credential else self.policy.credential_version
        )
        changed = policy.status is not self.policy.status
        if newer or policy.access_token != (self.credential.access_token if self.credential else ""):
            self.credential = _credential(policy, now, obtained_at=now if newer else None)
        if acknowledged or changed:
            self.quarantine = None
        if changed and policy.status is Status.ACTIVE:
            self.blocked_until = -NEVER
            self.transient_errors = self.bursts = 0
        if newer and self.block is Standing.NO_CREDENTIAL:
            self.blocked_until = -NEVER
        self.policy = policy
        self.models = frozenset(policy.models)
        self.weight = max(policy.weight, LEAST_WEIGHT)
        self.policy_blocked_until = _blocked_until(policy, now)

    @property
    def status(self) -> Status:
        """The status as selection sees it."""
        return self.quarantine or self.policy.status

    def standing(self, now: float) -> tuple[Standing, float]:
        """Returns whether it may serve, and when that changes by itself (`NEVER` when only by somebody's doing)."""
        if self.status in _OUT:
            return Standing.OUT, NEVER
        if now < self.policy_blocked_until:
            # The controller keeps an active account away for what we told it: we know better what that was.
            known = self.block if now < self.blocked_until else Standing.COOLING
            kind = _BLOCKED.get(self.policy.status, known)
            return self._named(kind, now, self.policy_blocked_until)
        if now < self.blocked_until:
            return self._named(self.block, now, self.blocked_until)
        credential = self.credential
        if credential is None or credential.version <= self.rejected_version or now >= credential.expires_at:
            return Standing.NO_CREDENTIAL, NEVER
        return Standing.SERVING, credential.expires_at

    def apply(self, report: Report, now: float) -> Verdict:
        """Applies what a holder has seen, at once."""
        match report.outcome:
            case Outcome.SUCCEEDED:
                self.last_success = (report.credential_version, now)
                self.transient_errors = self.bursts = 0
                return NOTHING
            case Outcome.RATE_LIMITED:
                self._rate_limited(report, now)
                return TELL
            case Outcome.QUOTA_EXCEEDED:
                self._block(Standing.QUOTA, report.resets_after or QUOTA_BLOCK, now)
                return TELL
            case Outcome.TRANSIENT_ERROR:
                return self._transient(now)
            case Outcome.AUTH_REJECTED:
                return self._rejected(report, now)
            case Outcome.ACCOUNT_DISABLED:
                self.quarantine = Status.DEACTIVATED
                return TELL
            case Outcome.MISCONFIGURED:
                self._block(Standing.COOLING, MISCONFIGURED_COOLDOWN, now)
                return TELL
            case _:
                return NOTHING

    def _rate_limited(self, report: Report, now: float) -> None:
        if report.resets_after is not None:
            self._block(Standing.COOLING, report.resets_after, now)
            return
        # Turns that were under way together fail together: they are one burst, not several in a row.
        if now >= self.blocked_until:
            self.bursts += 1
        self._block(Standing.COOLING, min(LONGEST_BURST_BLOCK, BURST_BLOCK * 2 ** min(self.bursts - 1, 10)), now)

    def _transient(self, now: float) -> Verdict:
        self.transient_errors += 1
        excess = self.transient_errors - TRANSIENT_ERRORS
        if excess < 0 or now < self.blocked_until:
            return NOTHING
        self._block(Standing.COOLING, min(LONGEST_TRANSIENT_BLOCK, TRANSIENT_BLOCK * 2 ** min(excess, 10)), now)
        return TELL

    def _rejected(self, report: Report, now: float) -> Verdict:
        credential = self.credential
        version = report.credential_version
        if credential is None or version != credential.version or version <= self.rejected_version:
            return NOTHING
        served, when = self.last_success
        if served == version and now - when < RECENT_SUCCESS:
            return NOTHING
        fresh = credential.obtained_at is not None and now - credential.obtained_at < REFRESH_EVERY
        if self.policy.kind != "api_key" and not fresh:
            self.rejected_version = version
            return Verdict(concerns_status=True, refresh_wanted=True)
        if report.code in PERMANENT_CODES:
            self.rejected_version = version
            self.quarantine = Status.REAUTH_REQUIRED
        else:
            self._block(Standing.NO_CREDENTIAL, AUTH_COOLDOWN, now)
        return TELL

    def _block(self, standing: Standing, seconds: float, now: float) -> None:
        until = now + min(max(seconds, 1.0), LONGEST_BLOCK)
        if until > self.blocked_until:
            self.block, self.blocked_until = standing, until

    @staticmethod
    def _named(standing: Standing, now: float, until: float) -> tuple[Standing, float]:
        if standing is Standing.COOLING and until - now > LONG_RATE_LIMIT:
            return Standing.QUOTA, until
        return standing, until


def _blocked_until(policy: AccountPolicy, now: float) -> float:
    if policy.blocked_for is not None:
        return now + policy.blocked_for
    return NEVER if policy.status in _BLOCKED else -NEVER


def _credential(policy: AccountPolicy, now: float, *, obtained_at: float | None) -> Credential | None:
    if not policy.access_token:
        return None
    if policy.refreshed_ago is not None:
        obtained_at = now - policy.refreshed_ago
    expires = NEVER if policy.credential_expires_in is None else now + policy.credential_expires_in
    return Credential(
        version=policy.credential_version,
        access_token=policy.access_token,
        expires_at=expires,
        obtained_at=obtained_at,
    )
