"""`MemoryAdmission`: the twin of `AdmissionClient` for tests, without a server.

It keeps limits, waits in order, denies what a test scripts, hands out the accounts it was given and remembers every
report. It knows no fairness, no session and no restart; one suite of tests runs against both it and the real thing.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from admission_client.errors import AcquireRejected, AdmissionError, AdmissionUnavailable, Denied
from admission_client.lease import (
    AccountKind,
    AccountNeeds,
    AccountReport,
    Denial,
    DenialReason,
    Grant,
    GrantedAccount,
)
from admission_client.policy import ResourceSettings

_FULL = {
    "lanes": DenialReason.LANE_FULL,
    "stages": DenialReason.STAGE_FULL,
    "keys": DenialReason.KEY_STREAMS_FULL,
}
_INVALID_ARGUMENT = 3

DEFAULT_RESOURCES = (
    ResourceSettings(name="lanes/proxy_http", limit=200),
    ResourceSettings(name="lanes/proxy_websocket", limit=200),
    ResourceSettings(name="lanes/proxy_compact", limit=16),
    ResourceSettings(name="lanes/dashboard", limit=50),
    ResourceSettings(name="stages/token_refresh", limit=32),
    ResourceSettings(name="stages/upstream_websocket_connect", limit=64, max_wait=2.0),
    ResourceSettings(name="stages/response_create", limit=64, max_wait=2.0),
    ResourceSettings(name="stages/compact_response_create", limit=16, max_wait=2.0),
    ResourceSettings(name="accounts/-/streams", limit=8, max_wait=10.0),
    ResourceSettings(name="accounts/-/response_creates", limit=4, max_wait=10.0),
    ResourceSettings(name="keys/-/streams", limit=0),
)
"""What a fresh installation has."""


class MemoryAdmission:
    """An `Admission` in memory.

    Args:
        resources: Settings by name or family; those of a fresh installation if none are given.
        accounts: Accounts to grant, the first that fits.
        keys: Ids of API keys by their SHA-256. None: every hash is known, as "key_1".
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        resources: Iterable[ResourceSettings] = DEFAULT_RESOURCES,
        *,
        accounts: Sequence[GrantedAccount] = (),
        keys: Mapping[bytes, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ready = True
        self.accounts = list(accounts)
        self.reports: list[AccountReport] = []
        self.asked: list[tuple[str, ...]] = []
        self.lapsed = False
        self.held: Counter[str] = Counter()
        self._settings = {settings.name: settings for settings in resources}
        self._keys = keys
        self._clock = clock
        self._scripted: list[tuple[str, AdmissionError]] = []
        self._queue: list[_Waiter] = []

    # --- What a test says and asks.

    def set_limit(self, name: str, limit: int, *, max_wait: float = 0.0) -> None:
        """Sets the limit of a resource, or of a family such as "accounts/-/streams"."""
        self._settings[name] = ResourceSettings(name=name, limit=limit, max_wait=max_wait)
        self._wake_waiters()

    def refuse_next(self, resource: str, error: AdmissionError | Denial | DenialReason) -> None:
        """Makes the next acquire that names `resource` fail so."""
        if isinstance(error, DenialReason):
            error = Denial(reason=error, resource=resource, retry_after=1.0)
        self._scripted.append((resource, Denied(error) if isinstance(error, Denial) else error))

    def waiting(self, resource: str) -> int:
        """Returns how many acquires wait for a resource, named as in the acquire."""
        return sum(resource == waiter.blocked_family for waiter in self._queue)

    # --- `Admission`.

    @asynccontextmanager
    async def acquire(
        self,
        resources: Sequence[str],
        *,
        key_sha256: bytes | None = None,
        peer: str | None = None,
        account: AccountNeeds | None = None,
        max_wait: float | None = None,
        label: str = "",
    ) -> AsyncIterator[Grant]:
        """Takes one seat of each resource; see `lease.Admission.acquire`. `label` is ignored."""
        if key_sha256 is not None and peer is not None:
            raise ValueError("a flow is a key or a peer, not both")
        grant = await self._take(tuple(resources), key_sha256, account, max_wait)
        try:
            yield grant
        finally:
            grant.release()

    def report(self, report: AccountReport) -> None:
        """Remembers the report."""
        self.reports.append(report)

    # --- Deciding.

    async def _take(
        self, resources: tuple[str, ...], key_sha256: bytes | None, needs: AccountNeeds | None, max_wait: float | None
    ) -> "MemoryGrant":
        self.asked.append(resources)
        self._refuse_as_scripted(resources)
        self._refuse_malformed(resources)
        waiter = _Waiter(resources, self._key_id(key_sha256), needs)
        began = self._clock()
        self._queue.append(waiter)
        try:
            while True:
                decision = self._decide(waiter)
                if isinstance(decision, MemoryGrant):
                    return decision
                family, denial = decision
                patience = self._settings[family].max_wait
                patience = patience if max_wait is None else min(patience, max_wait)
                left = began + patience - self._clock()
                if left <= 0:
                    raise Denied(denial)
                try:
                    async with asyncio.timeout(left):
                        await waiter.woken.wait()
                except TimeoutError:
                    continue
                waiter.woken.clear()
        finally:
            self._queue.remove(waiter)
            self._wake_waiters()

    def _refuse_as_scripted(self, resources: tuple[str, ...]) -> None:
        for n, (resource, error) in enumerate(self._scripted):
            if resource in resources:
                del self._scripted[n]
                raise error
        if not self.ready:
            raise AdmissionUnavailable("the admission server cannot be reached")

    def _refuse_malformed(self, resources: tuple[str, ...]) -> None:
        for n, resource in enumerate(resources):
            if resource not in self._settings:
                raise AcquireRejected("no such resource", code=_INVALID_ARGUMENT, field=f"resources[{n}]")
        lanes = [resource.startswith("lanes/") for resource in resources]
        if not resources or (any(lanes) and len(resources) > 1):
            raise AcquireRejected("one lane alone, or work", code=_INVALID_ARGUMENT, field="resources")

    def _key_id(self, key_sha256: bytes | None) -> str:
        if key_sha256 is None:
            return ""
        if self._keys is None:
            return "key_1"
        if key_sha256 not in self._keys:
            raise Denied(Denial(reason=DenialReason.KEY_UNKNOWN))
        return self._keys[key_sha256]

    def _decide(self, waiter: "_Waiter") -> "MemoryGrant | tuple[str, Denial]":
        """Grants, or says which family has no room and with which denial that ends."""
        waiter.blocked_family, waiter.blocked_on = "", ()
        refusals = []
        for account in self._candidates(waiter):
            full_names = tuple(waiter.full_name(family, account) for family in waiter.resources)
            refusal = self._refusal(waiter, full_names)
            if refusal is None:
                self.held.update(full_names)
                return MemoryGrant(self, waiter.resources, full_names, account, waiter.key_id)
            refusals.append(refusal)
        waiter.blocked_family = refusals[0][0]
        waiter.blocked_on = tuple(denial.resource for _, denial in refusals)
        return refusals[0]

    def _candidates(self, waiter: "_Waiter") -> Sequence[GrantedAccount | None]:
        if not any(family.startswith("accounts/-/") for family in waiter.resources):
            return (None,)
        fitting = [account for account in self.accounts if _fits(account, waiter.needs or AccountNeeds())]
        if not fitting:
            raise Denied(Denial(reason=DenialReason.NO_ACCOUNT))
        return fitting

    def _refusal(self, waiter: "_Waiter", full_names: tuple[str, ...]) -> tuple[str, Denial] | None:
        """Returns the first family without room for a waiter, counting those who were there before it."""
        ahead = self._queue[: self._queue.index(waiter)]
        for family, full_name in zip(waiter.resources, full_names, strict=True):
            settings = self._settings[family]
            crowded = any(full_name in other.blocked_on for other in ahead)
            full = settings.limit and self.held[full_name] >= settings.limit
            if crowded or full or settings.paused:
                return family, Denial(
                    reason=DenialReason.PAUSED if settings.paused else _full_reason(family),
                    resource=full_name,
                    limit=settings.limit,
                    held=self.held[full_name],
                    waiters=self.waiting(family),
                    retry_after=1.0,
                )
        return None

    def give_back(self, full_name: str) -> None:
        """Frees a seat. For `MemoryGrant` only."""
        self.held[full_name] -= 1
        if not self.held[full_name]:
            del self.held[full_name]
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        for waiter in self._queue:
            waiter.woken.set()


class MemoryGrant:
    """Seats held at a `MemoryAdmission`."""

    def __init__(
        self,
        admission: MemoryAdmission,
        families: tuple[str, ...],
        full_names: tuple[str, ...],
        account: GrantedAccount | None,
        key_id: str,
    ) -> None:
        self._admission = admission
        self._held = dict(zip(families, full_names, strict=True))
        self.account = account
        self.key_id = key_id

    @property
    def resources(self) -> tuple[str, ...]:
        """Full names of the resources still held."""
        return tuple(self._held.values())

    @property
    def live(self) -> bool:
        """Whether something new may be started on it; a test ends that by setting `MemoryAdmission.lapsed`."""
        return bool(self._held) and not self._admission.lapsed

    def release(self, *families: str) -> None:
        """Gives seats back; see `lease.Grant.release`."""
        for family in families or tuple(self._held):
            full_name = self._held.pop(family, None)
            if full_name is not None:
                self._admission.give_back(full_name)


class _Waiter:
    def __init__(self, resources: tuple[str, ...], key_id: str, needs: AccountNeeds | None) -> None:
        self.resources = resources
        self.key_id = key_id
        self.needs = needs
        self.woken = asyncio.Event()
        self.blocked_family = ""
        self.blocked_on: tuple[str, ...] = ()

    def full_name(self, family: str, account: GrantedAccount | None) -> str:
        if family.startswith("accounts/-/") and account is not None:
            return family.replace("-", account.account_id, 1)
        if family.startswith("keys/-/"):
            return family.replace("-", self.key_id, 1)
        return family


def _fits(account: GrantedAccount, needs: AccountNeeds) -> bool:
    return (
        (needs.kind is None or account.kind is needs.kind)
        and needs.required_account_id in {"", account.account_id}
        and account.account_id not in needs.avoid_account_ids
        and account.credential_version > needs.newer_than_credential_version - (not needs.newer_than_credential_version)
    )


def _full_reason(family: str) -> DenialReason:
    if family == "accounts/-/streams":
        return DenialReason.ACCOUNT_STREAMS_FULL
    if family == "accounts/-/response_creates":
        return DenialReason.ACCOUNT_RESPONSE_CREATES_FULL
    return _FULL[family.partition("/")[0]]


def memory_account(account_id: str = "acc_1", *, kind: AccountKind = AccountKind.CHATGPT) -> GrantedAccount:
    """Returns an account to grant, for tests that do not care which."""
    return GrantedAccount(
        account_id=account_id,
        kind=kind,
        base_url="http://127.0.0.1:9/backend-api",
        private_upstream=True,
        upstream_account_id=f"upstream-{account_id}",
        access_token=f"token-{account_id}",
        credential_version=1,
    )
