"""The policy as the control API sends it: settings of resources, accounts, API keys. Values and their checks; pure.

A policy is checked as a whole before any of it is applied: `PolicyError` names the field that is wrong, and nothing
has changed then.
"""

import enum
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

ID = re.compile(r"[a-z0-9_]+\Z")
ACCOUNT_FAMILIES = ("accounts/-/streams", "accounts/-/response_creates")
KEY_FAMILY = "keys/-/streams"
MOST_SEATS = 2**31 - 1
MOST_WEIGHT = 1e12
"""Sums of weights stay far from where floats lose small ones, or become infinite."""


class PolicyError(Exception):
    """A policy cannot be applied. `field` is empty when it does not build on the version in force."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Status(enum.StrEnum):
    """Whether an account may serve, as the controller says."""

    ACTIVE = "active"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    PAUSED = "paused"
    REAUTH_REQUIRED = "reauth_required"
    DEACTIVATED = "deactivated"


class Strategy(enum.StrEnum):
    """How to pick among the accounts that could serve."""

    CAPACITY_WEIGHTED = "capacity_weighted"
    ROUND_ROBIN = "round_robin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSettings:
    """Settings of one resource or, with "-" for an id, of a family. `limit` 0 means unlimited, but counted."""

    name: str
    limit: int = 0
    max_wait: float = 0.0
    queue_limit: int = 0
    max_hold: float = 0.0
    paused: bool = False
    reserve: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPolicy:
    """One account. Durations are seconds from the moment of arrival."""

    account_id: str
    kind: str
    base_url: str = ""
    private_upstream: bool = False
    upstream_account_id: str = ""
    status: Status = Status.ACTIVE
    blocked_for: float | None = None
    access_token: str = field(default="", repr=False)
    credential_version: int = 0
    credential_expires_in: float | None = None
    refreshed_ago: float | None = None
    plan: str = ""
    models: tuple[str, ...] = ()
    weight: float = 1.0
    caps: tuple[ResourceSettings, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """One API key. Empty `models` or `account_ids` means all."""

    key_id: str
    key_sha256: bytes = field(repr=False)
    expires_in: float | None = None
    models: tuple[str, ...] = ()
    account_ids: tuple[str, ...] = ()
    max_streams: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Settings that are not about one account or key."""

    resources: tuple[ResourceSettings, ...] = ()
    fair_share_threshold_percent: int = 80
    strategy: Strategy = Strategy.CAPACITY_WEIGHTED


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySnapshot:
    """The whole policy."""

    version: int
    settings: PolicySettings = PolicySettings()
    accounts: tuple[AccountPolicy, ...] = ()
    keys: tuple[KeyPolicy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDelta:
    """A change of the policy `base_version`. Whoever is in `accounts` or `keys` is added or replaced."""

    version: int
    base_version: int
    settings: PolicySettings | None = None
    accounts: tuple[AccountPolicy, ...] = ()
    removed_account_ids: tuple[str, ...] = ()
    keys: tuple[KeyPolicy, ...] = ()
    removed_key_ids: tuple[str, ...] = ()


def check_policy(
    *,
    settings: PolicySettings | None,
    accounts: Iterable[AccountPolicy],
    keys: Iterable[KeyPolicy],
    path: str,
) -> None:
    """Raises `PolicyError` with the first field that is wrong. `path` is "snapshot" or "delta"."""
    if settings is not None:
        _check_settings(settings, f"{path}.settings")
    names: set[str] = set()
    for i, account in enumerate(accounts):
        _check_account(account, f"{path}.accounts[{i}]")
        _check_new(account.account_id, names, f"{path}.accounts[{i}].account_id")
    names = set()
    hashes: set[bytes] = set()
    for i, key in enumerate(keys):
        _check_key(key, f"{path}.keys[{i}]")
        _check_new(key.key_id, names, f"{path}.keys[{i}].key_id")
        _check_new(key.key_sha256, hashes, f"{path}.keys[{i}].key_sha256")


def _check_settings(settings: PolicySettings, path: str) -> None:
    if settings.fair_share_threshold_percent > 100:
        raise PolicyError("must be 0 to 100", field=f"{path}.fair_share_threshold_percent")
    names: set[str] = set()
    for i, resource in enumerate(settings.resources):
        where = f"{path}.resources[{i}]"
        if not _is_settable(resource.name):
            raise PolicyError(
                f"{resource.name!r} is no lane, stage or family: write lanes/<name>, stages/<name>, "
                f"{', '.join(ACCOUNT_FAMILIES)} or {KEY_FAMILY}",
                field=f"{where}.name",
            )
        _check_new(resource.name, names, f"{where}.name")
        _check_numbers(resource, where)


def _check_account(account: AccountPolicy, path: str) -> None:
    _check_id(account.account_id, f"{path}.account_id")
    if account.kind not in ("chatgpt", "api_key"):
        raise PolicyError("must be said", field=f"{path}.kind")
    if not account.weight <= MOST_WEIGHT or math.isinf(account.weight):
        raise PolicyError(f"must be a number of at most {MOST_WEIGHT:.0e}", field=f"{path}.weight")
    names: set[str] = set()
    for i, cap in enumerate(account.caps):
        if cap.name not in ACCOUNT_FAMILIES:
            raise PolicyError(f"must be one of {', '.join(ACCOUNT_FAMILIES)}", field=f"{path}.caps[{i}].name")
        _check_new(cap.name, names, f"{path}.caps[{i}].name")
        _check_numbers(cap, f"{path}.caps[{i}]")


def _check_key(key: KeyPolicy, path: str) -> None:
    _check_id(key.key_id, f"{path}.key_id")
    if len(key.key_sha256) != 32:
        raise PolicyError("must be 32 bytes", field=f"{path}.key_sha256")
    if key.max_streams is not None and key.max_streams > MOST_SEATS:
        raise PolicyError(f"must be at most {MOST_SEATS}", field=f"{path}.max_streams")


def _check_numbers(settings: ResourceSettings, path: str) -> None:
    for name in ("limit", "queue_limit", "reserve"):
        if getattr(settings, name) > MOST_SEATS:
            raise PolicyError(f"must be at most {MOST_SEATS}", field=f"{path}.{name}")
    for name in ("max_wait", "max_hold"):
        if getattr(settings, name) < 0:
            raise PolicyError("must not be negative", field=f"{path}.{name}")


def _check_id(value: str, path: str) -> None:
    if not ID.match(value) or len(value) > 128:
        raise PolicyError("must match [a-z0-9_]+ and have at most 128 characters", field=path)


def _check_new(value: str | bytes, seen: set[str] | set[bytes], path: str) -> None:
    if value in seen:
        raise PolicyError("is named twice", field=path)
    seen.add(value)  # type: ignore[arg-type]  # each caller passes a set of its own type


def _is_settable(name: str) -> bool:
    if name in ACCOUNT_FAMILIES or name == KEY_FAMILY:
        return True
    kind, _, rest = name.partition("/")
    return kind in ("lanes", "stages") and bool(ID.match(rest))
