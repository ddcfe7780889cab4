"""What there is: resources, families, API keys, accounts, as the policy in force says. Pure.

A policy is checked as a whole, then applied as a whole. What is held stays held: a resource that has left the policy is
kept, closed, for as long as somebody holds a seat of it, so that the seat can be given back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

from admission_server.accounts import Account
from admission_server.policy import (
    ACCOUNT_FAMILIES,
    ID,
    KEY_FAMILY,
    AccountPolicy,
    KeyPolicy,
    PolicyDelta,
    PolicyError,
    PolicySettings,
    PolicySnapshot,
    ResourceSettings,
    check_policy,
)
from admission_server.resources import Family, Kind, Resource
from admission_server.selection import Selector

SHAPES = 1_024


class BadName(Exception):
    """A resource name of an acquire is wrong: `index` says which."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


class Key:
    """One API key, ready for decisions."""

    __slots__ = ("accounts", "expires_at", "flow", "key_id", "models", "policy", "resources")

    def __init__(self, policy: KeyPolicy, streams: Resource, now: float) -> None:
        self.policy = policy
        self.key_id = policy.key_id
        self.flow = f"key:{policy.key_id}"
        self.expires_at = None if policy.expires_in is None else now + policy.expires_in
        self.models = frozenset(policy.models)
        self.accounts = frozenset(policy.account_ids) or None
        self.resources = {KEY_FAMILY: streams}


Part = Resource | Family


@dataclass(frozen=True, slots=True)
class Shape:
    """The resources of an acquire, looked up. Most acquires of a holder have one of a few shapes, so they are kept.

    `parts` are in request order: a resource, or a family for the resource of the key or of the account. `before` and
    `after` are those that need no account, before and after the first that does.
    """

    parts: tuple[Part, ...] = ()
    before: tuple[Part, ...] = ()
    families: tuple[Family, ...] = ()
    after: tuple[Part, ...] = ()
    fixed: tuple[Resource, ...] | None = None
    """All parts, when none of them depends on key or account."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a policy has changed, as far as waiters are concerned."""

    everything: bool = False
    """Whether resources, keys, or what accounts may do have changed: everybody who waits is looked at again."""
    accounts: tuple[Account, ...] = ()


class Catalogue:
    """Everything that the policy says, by name."""

    def __init__(self, *, random: Random) -> None:
        self.version = 0
        self.resources: dict[str, Resource] = {}
        self.families: dict[str, Family] = {name: Family(name) for name in (*ACCOUNT_FAMILIES, KEY_FAMILY)}
        """Those that a policy has named, for good: there are as many as operators think of."""
        self.selector = Selector(random)
        self._settings = PolicySettings()
        self._keys: dict[str, Key] = {}
        self._keys_by_hash: dict[bytes, Key] = {}
        self._shapes: dict[tuple[str, ...], Shape] = {}

    def key(self, sha256: bytes) -> Key | None:
        """Returns the key with a hash."""
        return self._keys_by_hash.get(sha256)

    def shape(self, names: tuple[str, ...]) -> Shape:
        """Returns the resources of an acquire. Raises `BadName`."""
        shape = self._shapes.get(names)
        if shape is None:
            shape = self._look_up(names)
            if len(self._shapes) >= SHAPES:
                self._shapes.clear()
            self._shapes[names] = shape
        return shape

    def adopt(self, name: str, now: float) -> Resource | None:
        """Returns a resource that a holder claims a lease on, made when the policy does not know it (yet): closed, and
        with a family that is in no list, so that nothing is left of it once it is unused.

        None for a name that can be none.
        """
        found = self.resources.get(name)
        if found is not None:
            return found
        kind, _, rest = name.partition("/")
        if kind in ("lanes", "stages") and ID.match(rest):
            family = self.families.get(name) or Family(name)
        else:
            owner, _, what = rest.partition("/")
            known = self.families.get(f"{kind}/-/{what}")
            if known is None or not ID.match(owner):
                return None
            family = known
        resource = self._resource(name, family, now)
        self._configure(resource)
        return resource

    def forget_unused(self, resource: Resource) -> None:
        """Drops a resource that the policy does not know once nobody holds a seat of it."""
        if not resource.leases and not resource.waiting and not self._is_known(resource):
            self.resources.pop(resource.name, None)

    def apply_snapshot(self, snapshot: PolicySnapshot, now: float, *, acknowledged: Iterable[str] = ()) -> Change:
        """Replaces the policy. Raises `PolicyError`, and then nothing has changed."""
        check_policy(settings=snapshot.settings, accounts=snapshot.accounts, keys=snapshot.keys, path="snapshot")
        accounts = {account.account_id for account in snapshot.accounts}
        keys = {key.key_id for key in snapshot.keys}
        delta = PolicyDelta(
            version=snapshot.version,
            base_version=self.version,
            settings=snapshot.settings,
            accounts=snapshot.accounts,
            removed_account_ids=tuple(a for a in self.selector.accounts if a not in accounts),
            keys=snapshot.keys,
            removed_key_ids=tuple(k for k in self._keys if k not in keys),
        )
        return self._apply(delta, now, frozenset(acknowledged))

    def apply_delta(self, delta: PolicyDelta, now: float, *, acknowledged: Iterable[str] = ()) -> Change:
        """Changes the policy. Raises `PolicyError`, and then nothing has changed."""
        if delta.base_version != self.version or not self.version:
            raise PolicyError(f"builds on version {delta.base_version}, in force is {self.version}: send a snapshot")
        check_policy(settings=delta.settings, accounts=delta.accounts, keys=delta.keys, path="delta")
        replaced = {key.key_id for key in delta.keys} | set(delta.removed_key_ids)
        for i, key in enumerate(delta.keys):
            holder = self._keys_by_hash.get(key.key_sha256)
            if holder is not None and holder.key_id not in replaced:
                raise PolicyError(f"is the hash of key {holder.key_id} already", field=f"delta.keys[{i}].key_sha256")
        return self._apply(delta, now, frozenset(acknowledged))

    def _apply(self, delta: PolicyDelta, now: float, acknowledged: frozenset[str]) -> Change:
        everything = bool(delta.settings or delta.keys or delta.removed_key_ids or delta.removed_account_ids)
        if delta.settings is not None:
            self._apply_settings(delta.settings, now)
        for account_id in delta.removed_account_ids:
            self._remove_account(account_id)
        changed = []
        for policy in delta.accounts:
            account, regroup = self._apply_account(policy, now, acknowledged)
            changed.append(account)
            everything |= regroup
        for key_id in (*delta.removed_key_ids, *(key.key_id for key in delta.keys)):
            self._remove_key(key_id)
        for key_policy in delta.keys:
            self._add_key(key_policy, now)
        if everything:
            self._shapes.clear()
            self.selector.regroup()
            for resource in list(self.resources.values()):
                self.forget_unused(resource)
        for account in changed:
            self.selector.touch(account, now)
        self.version = delta.version
        return Change(everything=everything, accounts=tuple(changed))

    def _apply_settings(self, settings: PolicySettings, now: float) -> None:
        self._settings = settings
        self.selector.strategy = settings.strategy
        named = {resource.name: resource for resource in settings.resources}
        for name, family in self.families.items():
            if "/-/" in name:
                family.defaults = named.pop(name, ResourceSettings(name=name))
        for name in named:
            self._resource(name, self._family(name), now)
        for resource in self.resources.values():
            self._configure(resource)

    def _apply_account(self, policy: AccountPolicy, now: float, acknowledged: frozenset[str]) -> tuple[Account, bool]:
        account = self.selector.accounts.get(policy.account_id)
        if account is None:
            account = self.selector.accounts[policy.account_id] = Account(policy, now)
            regroup = True
        else:
            old = account.policy
            regroup = (old.kind, old.models) != (policy.kind, policy.models)
            account.revise(policy, now, acknowledged=policy.account_id in acknowledged)
        for family in ACCOUNT_FAMILIES:
            name = family.replace("-", policy.account_id, 1)
            resource = self._resource(name, self.families[family], now)
            resource.account = account
            account.resources[family] = resource
            self._configure(resource)
        return account, regroup

    def _remove_account(self, account_id: str) -> None:
        account = self.selector.accounts.pop(account_id, None)
        if account is None:
            return
        for resource in account.resources.values():
            resource.account = None
            self._configure(resource)
            self.forget_unused(resource)

    def _add_key(self, policy: KeyPolicy, now: float) -> None:
        streams = self._resource(f"keys/{policy.key_id}/streams", self.families[KEY_FAMILY], now)
        key = Key(policy, streams, now)
        self._keys[key.key_id] = key
        self._keys_by_hash[policy.key_sha256] = key
        self._configure(streams)

    def _remove_key(self, key_id: str) -> None:
        key = self._keys.pop(key_id, None)
        if key is None:
            return
        del self._keys_by_hash[key.policy.key_sha256]
        for resource in key.resources.values():
            self._configure(resource)
            self.forget_unused(resource)

    def _configure(self, resource: Resource) -> None:
        resource.configure(
            self._settings_of(resource), fair_share_threshold_percent=self._settings.fair_share_threshold_percent
        )

    def _settings_of(self, resource: Resource) -> ResourceSettings:
        family = resource.family
        if not self._is_known(resource):
            # It has left the policy: nothing more is granted, and what is held is not above a limit either.
            return replace(family.defaults, name=resource.name, limit=0, paused=True)
        if family.kind is Kind.ACCOUNT and resource.account is not None:
            for cap in resource.account.policy.caps:
                if cap.name == family.name:
                    return replace(cap, name=resource.name)
        elif family.kind is Kind.KEY:
            most = self._keys[resource.name.split("/")[1]].policy.max_streams
            return replace(family.defaults, name=resource.name, limit=family.defaults.limit if most is None else most)
        elif family.kind in (Kind.LANE, Kind.STAGE):
            return next(s for s in self._settings.resources if s.name == resource.name)
        return replace(family.defaults, name=resource.name)

    def _is_known(self, resource: Resource) -> bool:
        if resource.family.kind is Kind.ACCOUNT:
            return resource.name.split("/")[1] in self.selector.accounts
        if resource.family.kind is Kind.KEY:
            return resource.name.split("/")[1] in self._keys
        return any(s.name == resource.name for s in self._settings.resources)

    def _resource(self, name: str, family: Family, now: float) -> Resource:
        resource = self.resources.get(name)
        if resource is None:
            resource = self.resources[name] = Resource(name, family, now=now)
        return resource

    def _family(self, name: str) -> Family:
        family = self.families.get(name)
        if family is None:
            claimed = self.resources.get(name)
            family = self.families[name] = claimed.family if claimed is not None else Family(name)
        return family

    def _look_up(self, names: tuple[str, ...]) -> Shape:
        parts: list[Part] = []
        for i, name in enumerate(names):
            if name == KEY_FAMILY or name in ACCOUNT_FAMILIES:
                parts.append(self.families[name])
            else:
                resource = self.resources.get(name)
                if (
                    resource is None
                    or resource.family.kind not in (Kind.LANE, Kind.STAGE)
                    or not self._is_known(resource)
                ):
                    raise BadName(f"{name!r} is unknown", i)
                parts.append(resource)
        _check_lane_alone(parts)
        at = next((i for i, part in enumerate(parts) if _is_account(part)), len(parts))
        fixed = tuple(part for part in parts if isinstance(part, Resource))
        return Shape(
            parts=tuple(parts),
            before=tuple(parts[:at]),
            families=tuple(part for part in parts if isinstance(part, Family) and _is_account(part)),
            after=tuple(part for part in parts[at:] if not _is_account(part)),
            fixed=fixed if len(fixed) == len(parts) else None,
        )


def _check_lane_alone(parts: Sequence[Part]) -> None:
    for i, part in enumerate(parts):
        if isinstance(part, Resource) and part.family.kind is Kind.LANE and len(parts) > 1:
            raise BadName("a lane is taken alone, before its work", i)


def _is_account(part: Part) -> bool:
    return isinstance(part, Family) and part.kind is Kind.ACCOUNT
