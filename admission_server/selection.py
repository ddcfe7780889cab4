"""Which account serves a turn. Pure.

* A *pool* is the set of accounts that a kind of request may use (kind, model, key scope). Whoever changes an account
  marks it stale in its pools, and the next pick looks at the stale ones only, never at all accounts. Those who wait for
  a pool stand apart by the accounts that they avoid: whether a seat helps them, or nobody can, is asked once a group.
* Hard owner first (`required_account_id`, `required_owner_key`): that account or none. Then the preferred owner, which
  is waited for while it serves at all. Then soft affinity, which spills when its account is full. Then the strategy.
* `capacity_weighted` draws at random by weight ÷ (1 + seats held): turns that come one by one use accounts in
  proportion to their capacity, and bursts spread. `round_robin` takes the one that was picked longest ago.
"""

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol

from admission_server.accounts import NEVER, Account, Standing
from admission_server.affinity import OwnerMap
from admission_server.decisions import AccountNeeds, Reason
from admission_server.policy import Status, Strategy
from admission_server.queueing import Turnover, WaitingRoom
from admission_server.resources import Family, Resource

if TYPE_CHECKING:
    from admission_server.catalogue import Key
    from admission_server.waiting import Waiter

AFFINITY_TTL, AFFINITY_KEYS = 1800.0, 100_000
OWNED_TTL, OWNED_KEYS = 86400.0, 200_000
OWNER_IS_BUSY_FOR = 32.0
"""A hard owner that is blocked for no longer than this is busy; for longer, it is gone, and clients do better to resend
their turn in full to another account."""
POOL_VARIANTS = 4_096
ANY_MOMENT = -NEVER
NO_NEEDS = AccountNeeds()


class Pick:
    """The account that was chosen. `remap`: whether affinity keys belong to it from now on."""

    __slots__ = ("account", "owner_moved", "remap")

    def __init__(self, account: Account, *, owner_moved: bool = False, remap: bool = True) -> None:
        self.account = account
        self.owner_moved = owner_moved
        self.remap = remap


class Unservable:
    """Nobody can serve this now, and a free seat would not change that.

    `until` is when the reason is over, `NEVER` when time alone does not help. `changes_at` is when it is worth looking
    again at the earliest (a credential may come at any moment), and `at` is where to wait for that.
    """

    __slots__ = ("at", "changes_at", "reason", "until")

    def __init__(
        self,
        reason: Reason,
        *,
        until: float = NEVER,
        changes_at: float = NEVER,
        at: "Pool | Resource | None" = None,
    ) -> None:
        self.reason = reason
        self.until = until
        self.changes_at = changes_at
        self.at = at


class Ranking(Protocol):
    """A strategy: knows which members are open and how much they are worth, and draws one."""

    def set(self, index: int, score: float) -> None:
        """Says what a member is worth; 0: it is not open."""

    def draw(self) -> int | None:
        """Returns a member that is open, None without any."""


class WeightedDraw:
    """Draws members at random by score. A tree of sums, so that a change or a draw takes O(log members) steps, and
    exactly nothing is left when all scores are 0.
    """

    __slots__ = ("_leaves", "_random", "_sums")

    def __init__(self, size: int, random: Random) -> None:
        self._leaves = 1 << max(size - 1, 0).bit_length()
        self._sums = [0.0] * (2 * self._leaves)
        self._random = random

    def set(self, index: int, score: float) -> None:
        """Says what a member is worth; 0: it is not open."""
        sums = self._sums
        i = index + self._leaves
        sums[i] = score
        while i > 1:
            i >>= 1
            sums[i] = sums[2 * i] + sums[2 * i + 1]

    def draw(self) -> int | None:
        """Returns a member that is open, None without any."""
        sums = self._sums
        total = sums[1]
        if not total:
            return None
        left_over = self._random.random() * total
        i = 1
        while i < self._leaves:
            i *= 2
            if left_over >= sums[i] and sums[i + 1]:
                left_over -= sums[i]
                i += 1
        return i - self._leaves


class LongestAgo:
    """Draws the open member that was picked longest ago, by whatever rule it was picked."""

    __slots__ = ("_heap", "_in_heap", "_members", "_open")

    def __init__(self, members: Sequence[Account]) -> None:
        self._members = members
        self._open = [False] * len(members)
        self._in_heap = [False] * len(members)
        self._heap: list[tuple[int, int]] = []

    def set(self, index: int, score: float) -> None:
        """Says what a member is worth; 0: it is not open."""
        self._open[index] = score > 0
        if score > 0 and not self._in_heap[index]:
            self._in_heap[index] = True
            heapq.heappush(self._heap, (self._members[index].last_picked, index))

    def draw(self) -> int | None:
        """Returns a member that is open, None without any."""
        heap = self._heap
        while heap:
            picked, index = heap[0]
            if not self._open[index]:
                heapq.heappop(heap)
                self._in_heap[index] = False
            elif picked != self._members[index].last_picked:
                heapq.heapreplace(heap, (self._members[index].last_picked, index))
            else:
                return index
        return None


class Pool:
    """Accounts that a kind of request may use, ranked; and those who wait for any of them."""

    __slots__ = (
        "_figures",
        "_full",
        "_index",
        "_masks",
        "_open",
        "_outlook",
        "_ranking",
        "_reattach",
        "_serving",
        "_wide_open",
        "families",
        "members",
        "room",
        "serving",
        "stale",
        "turnover",
    )

    def __init__(
        self,
        members: Sequence[Account],
        families: Sequence[Family],
        ranking: Ranking,
        *,
        reattach: bool,
        now: float,
    ) -> None:
        self.members = members
        self.room: WaitingRoom[frozenset[Account], Waiter] = WaitingRoom(families[0].holdings.queue)
        self.turnover = Turnover(now)
        self.stale = set(members)
        self.serving = 0
        self._wide_open = 0
        self.families = families
        self._reattach = reattach
        self._ranking = ranking
        self._index = {account: i for i, account in enumerate(members)}
        self._full = (1 << len(families)) - 1
        self._masks = [0] * len(members)
        self._serving = [False] * len(members)
        self._open = [0] * len(families)
        self._outlook: dict[Standing, float] | None = None
        self._figures: tuple[str, int, int] | None = None

    def __contains__(self, account: Account) -> bool:
        return account in self._index

    def is_open(self, avoid: Iterable[Account] = ()) -> bool:
        """Returns whether any account, but for those to avoid, serves and has room in all families."""
        self.refresh()
        return self._wide_open > sum(self._masks[self._index[account]] == self._full for account in avoid)

    def is_served(self, avoid: Iterable[Account] = ()) -> bool:
        """Returns whether any account, but for those to avoid, serves at all."""
        self.refresh()
        return self.serving > sum(self._serving[self._index[account]] for account in avoid)

    def outlook(self, now: float) -> Mapping[Standing, float]:
        """Returns why members do not serve, and when the first of them for each reason may again: `ANY_MOMENT` when it
        waits for somebody. Kept until a member changes.
        """
        self.refresh()
        if self._outlook is None:
            self._outlook = {}
            for account in self.members:
                if not account.serving:
                    standing, until = account.standing(now)
                    if standing is Standing.SERVING:  # since a moment ago, and the next tick will notice
                        standing, until = Standing.COOLING, ANY_MOMENT
                    elif standing is Standing.NO_CREDENTIAL and until == NEVER:
                        until = ANY_MOMENT  # a newer one may come
                    self._outlook[standing] = min(self._outlook.get(standing, NEVER), until)
        return self._outlook

    def figures(self) -> tuple[str, int, int]:
        """Returns the family that holds things up, its limit and its seats held, over all that serve. Kept until a
        member changes.
        """
        self.refresh()
        if self._figures is None:
            family = self.blocking_family()
            resources = [account.resources[family.name] for account in self.members if account.serving]
            limits = [resource.settings.limit for resource in resources]
            self._figures = (family.name, sum(limits) if all(limits) else 0, sum(len(r.leases) for r in resources))
        return self._figures

    def draw(self, avoid: Iterable[Account] = ()) -> Account | None:
        """Returns an account with room in all families, None without any."""
        self.refresh()
        for account in avoid:
            self._ranking.set(self._index[account], 0.0)
            self.stale.add(account)
        index = self._ranking.draw()
        # A ranking goes by floats; whether there is a seat is never left to those.
        if index is None or self._masks[index] != self._full:
            return None
        return self.members[index]

    def blocking_family(self) -> Family:
        """Returns the family that holds things up: the first in which no account has room, else the last."""
        self.refresh()
        for family, open_accounts in zip(self.families, self._open, strict=True):
            if not open_accounts:
                return family
        return self.families[-1]

    def refresh(self) -> None:
        """Looks at the accounts that have changed since the last time."""
        if not self.stale:
            return
        for account in self.stale:
            self._update(account)
        self.stale.clear()
        self._outlook = self._figures = None

    def has_room(self, account: Account) -> bool:
        """Returns whether an account has room in all families."""
        return all(account.resources[f.name].has_room(reattach=self._reattach) for f in self.families)

    def first_full(self, account: Account) -> Resource:
        """Returns the first resource of an account that has no room; its first when all have."""
        resources = [account.resources[f.name] for f in self.families]
        return next((r for r in resources if not r.has_room(reattach=self._reattach)), resources[0])

    def _update(self, account: Account) -> None:
        index = self._index[account]
        mask = 0
        bit = 1
        if account.serving:
            for family in self.families:
                resource = account.resources[family.name]
                if len(resource.leases) < resource.ceilings[self._reattach]:
                    mask |= bit
                bit <<= 1
        if mask != self._masks[index]:
            changed = mask ^ self._masks[index]
            for i in range(len(self.families)):
                if changed >> i & 1:
                    self._open[i] += 1 if mask >> i & 1 else -1
            self._wide_open += (mask == self._full) - (self._masks[index] == self._full)
            self._masks[index] = mask
        if account.serving != self._serving[index]:
            self._serving[index] = account.serving
            self.serving += 1 if account.serving else -1
        if mask and mask == bit - 1:
            held = len(account.resources[self.families[0].name].leases)
            self._ranking.set(index, account.weight / (1 + held))
        else:
            self._ranking.set(index, 0.0)


class Selector:
    """The accounts, in pools, and the maps of which keys belong to which of them."""

    def __init__(self, random: Random) -> None:
        self.accounts: dict[str, Account] = {}
        self.strategy = Strategy.CAPACITY_WEIGHTED
        self._random = random
        self._affinity = OwnerMap(capacity=AFFINITY_KEYS, ttl=AFFINITY_TTL)
        self._owned = OwnerMap(capacity=OWNED_KEYS, ttl=OWNED_TTL)
        self._variants: dict[tuple[object, ...], Pool] = {}
        self._pools: dict[tuple[object, ...], Pool] = {}
        self._picks = itertools.count(1)
        self._timers: list[tuple[float, str]] = []

    def choose(
        self, needs: AccountNeeds, key: "Key | None", families: Sequence[Family], now: float
    ) -> Pick | Pool | Resource | Unservable:
        """Returns the account to take, or where to wait: for a pool, or for a resource of the one account."""
        client = key.key_id if key is not None else ""
        if needs.required_account_id or needs.required_owner_key:
            owner_id = needs.required_account_id or self._owned.get(client, needs.required_owner_key, now)
            if owner_id is not None:
                return self._hard(owner_id, needs, key, families, now)
        pool = self._pool(needs, key, families, reattach=needs.reattach, now=now)
        moved = False
        if needs.preferred_owner_key:
            owner = self.accounts.get(self._owned.get(client, needs.preferred_owner_key, now) or "")
            if owner is not None:
                if owner.serving and owner in pool and owner.account_id not in needs.avoid_account_ids:
                    return Pick(owner) if pool.has_room(owner) else pool.first_full(owner)
                moved = True
        return self._soft(needs, key, pool, now, moved=moved)

    def served(self, pick: Pick, needs: AccountNeeds, key: "Key | None", now: float) -> None:
        """Notes that an account was granted: for round robin, and for the affinity keys of the request."""
        pick.account.last_picked = next(self._picks)
        if pick.remap and needs.affinity_keys:
            client = key.key_id if key is not None else ""
            for affinity_key in needs.affinity_keys:
                self._affinity.put(client, affinity_key, pick.account.account_id, now)

    def own(self, client: str, keys: Iterable[str], account_id: str, now: float) -> None:
        """Notes that an account owns keys: response ids, turn states."""
        for key in keys:
            self._owned.put(client, key, account_id, now)

    def touch(self, account: Account, now: float) -> None:
        """Looks again at whether an account serves. Call it whenever anything but its seats has changed."""
        standing, until = account.standing(now)
        account.serving = standing is Standing.SERVING
        if until < NEVER:
            heapq.heappush(self._timers, (until, account.account_id))
            if len(self._timers) > 4 * len(self.accounts) + 64:
                self._rebuild_timers(now)
        for pool in account.pools:
            pool.stale.add(account)

    def due(self, now: float) -> list[Account]:
        """Returns the accounts whose standing changes by itself about now, looked at again."""
        changed: dict[str, Account] = {}
        while self._timers and self._timers[0][0] <= now:
            account = self.accounts.get(heapq.heappop(self._timers)[1])
            if account is not None:
                changed[account.account_id] = account
        for account in changed.values():
            self.touch(account, now)
        return list(changed.values())

    def regroup(self) -> None:
        """Forgets the pools. Call it when accounts came or went, or what they or keys may do has changed."""
        self._variants.clear()
        self._pools.clear()
        for account in self.accounts.values():
            account.pools.clear()

    def _hard(
        self, owner_id: str, needs: AccountNeeds, key: "Key | None", families: Sequence[Family], now: float
    ) -> Pick | Resource | Unservable:
        pool = self._pool(needs, key, families, reattach=True, now=now)
        account = self.accounts.get(owner_id)
        if account is None or account not in pool:
            return Unservable(Reason.OWNER_GONE)
        credential = account.credential
        if account.serving and credential is not None and credential.version > needs.newer_than_credential_version:
            return Pick(account) if pool.has_room(account) else pool.first_full(account)
        at = pool.first_full(account)
        standing, until = account.standing(now)
        if standing not in (Standing.SERVING, Standing.OUT) and until - now <= OWNER_IS_BUSY_FOR:
            return Unservable(Reason.OWNER_BUSY, until=until, changes_at=until, at=at)
        if standing is Standing.SERVING or (standing is Standing.NO_CREDENTIAL and until == NEVER):
            return Unservable(Reason.CREDENTIAL_UNAVAILABLE, changes_at=now, at=at)
        return Unservable(Reason.OWNER_GONE)

    def _soft(
        self, needs: AccountNeeds, key: "Key | None", pool: Pool, now: float, *, moved: bool
    ) -> Pick | Pool | Unservable:
        client = key.key_id if key is not None else ""
        spilled = False
        for affinity_key in needs.affinity_keys:
            account = self.accounts.get(self._affinity.get(client, affinity_key, now) or "")
            if account is None:
                continue
            if account.serving and account in pool and account.account_id not in needs.avoid_account_ids:
                if pool.has_room(account):
                    return Pick(account, owner_moved=moved)
                spilled = True
            break
        avoid = self.avoided(needs, pool)
        account = pool.draw(avoid)
        if account is not None:
            return Pick(account, owner_moved=moved, remap=not spilled)
        if pool.is_served(avoid):
            return pool
        if not self.accounts or (key is not None and key.accounts and not key.accounts & self.accounts.keys()):
            return Unservable(Reason.NO_ACCOUNT)
        if not pool.members:
            return Unservable(Reason.UNSUPPORTED_BY_ACCOUNT)
        return self.nobody(pool, now)

    def avoided(self, needs: AccountNeeds, pool: Pool) -> frozenset[Account]:
        """Returns the accounts of a pool that a request is to avoid: where it stands in the pool's waiting room."""
        known = (self.accounts.get(account_id) for account_id in needs.avoid_account_ids)
        return frozenset(account for account in known if account is not None and account in pool)

    @staticmethod
    def nobody(pool: Pool, now: float) -> Unservable:
        """Returns why nobody in a pool can serve, for those who avoid the accounts that do."""
        soonest = {standing: max(until, now) for standing, until in pool.outlook(now).items()}
        if pool.serving:
            # It failed this very request: for that, it is an account that cools down.
            soonest.setdefault(Standing.COOLING, NEVER)
        changes_at = min(soonest.values())
        for standing, reason in _REFUSALS:
            if standing in soonest:
                return Unservable(reason, until=soonest[standing], changes_at=changes_at, at=pool)
        if any(account.status is Status.REAUTH_REQUIRED for account in pool.members):
            return Unservable(Reason.CREDENTIAL_UNAVAILABLE)  # there are accounts, but somebody must sign in to them
        return Unservable(Reason.NO_ACCOUNT)

    def _pool(
        self, needs: AccountNeeds, key: "Key | None", families: Sequence[Family], *, reattach: bool, now: float
    ) -> Pool:
        scope = key.accounts if key is not None else None
        variant = (families, reattach, needs.kind, needs.model, scope)
        pool = self._variants.get(variant)
        if pool is None:
            if len(self._variants) >= POOL_VARIANTS:
                # Model names come from clients. Pools themselves are as many as the policy makes different.
                self._variants.clear()
            pool = self._variants[variant] = self._same_pool(needs, scope, families, reattach=reattach, now=now)
        return pool

    def _same_pool(
        self,
        needs: AccountNeeds,
        scope: frozenset[str] | None,
        families: Sequence[Family],
        *,
        reattach: bool,
        now: float,
    ) -> Pool:
        members = tuple(
            account
            for account in self.accounts.values()
            if (not needs.kind or account.policy.kind == needs.kind)
            and (not needs.model or not account.models or needs.model in account.models)
            and (not scope or account.account_id in scope)
        )
        pool = self._pools.get((families, reattach, members))
        if pool is None:
            weighted = self.strategy is Strategy.CAPACITY_WEIGHTED
            ranking: Ranking = WeightedDraw(len(members), self._random) if weighted else LongestAgo(members)
            pool = Pool(members, families, ranking, reattach=reattach, now=now)
            self._pools[families, reattach, members] = pool
            for account in members:
                account.pools.append(pool)
        return pool

    def _rebuild_timers(self, now: float) -> None:
        self._timers = [(until, a.account_id) for a in self.accounts.values() if (until := a.standing(now)[1]) < NEVER]
        heapq.heapify(self._timers)


_REFUSALS = (
    (Standing.COOLING, Reason.COOLING_DOWN),
    (Standing.QUOTA, Reason.QUOTA_EXHAUSTED),
    (Standing.NO_CREDENTIAL, Reason.CREDENTIAL_UNAVAILABLE),
)
"""What a refusal says when accounts are out for several reasons: the one that is over first."""
