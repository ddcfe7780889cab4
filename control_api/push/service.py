"""Makes the policy: everything the admission server needs to decide, read from the database as it stands.

Access tokens leave this process here and nowhere else, and only those of accounts that may serve.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from sqlmodel import col, select

from admission_client.lease import AccountKind
from admission_client.policy import AccountPolicy, AccountStatus, KeyPolicy, Policy, ResourceSettings
from control_api.accounts.models import Account
from control_api.accounts.service import AccountService
from control_api.accounts.status import ROUTABLE
from control_api.database import Database
from control_api.keys.models import ApiKey
from control_api.keys.service import KeyService
from control_api.limits.service import Limits, LimitService

CLOCK_TOLERANCE = 1.0
"""How far wall clock and monotonic clock may drift apart before moments are reckoned anew, in seconds."""


class PolicySink(Protocol):
    """Where policies go: `admission_client.sync.SyncClient`."""

    async def update(self, policy: Policy) -> int:
        """Applies a policy and returns its version."""


class Weights(Protocol):
    """Who knows what is left of the accounts' quotas."""

    async def weights(self) -> Mapping[str, float]:
        """Returns the remaining capacity by account id, in one unit for all."""


class PolicyReader:
    """Reads the state of this installation as a policy."""

    def __init__(
        self,
        *,
        database: Database,
        accounts: AccountService,
        keys: KeyService,
        limits: LimitService,
        weights: Weights,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._keys = keys
        self._limits = limits
        self._weights = weights
        self._now = now
        self._clock = monotonic
        self._offset = monotonic() - now()

    async def read(self) -> Policy:
        """Returns the policy as of now."""
        self._follow_clocks()
        async with self._database.read() as session:
            accounts = (await session.exec(select(Account).order_by(col(Account.id)))).all()
        weights = await self._weights.weights()
        limits = self._limits.current
        return Policy(
            resources=tuple(limits.resources.values()),
            accounts=tuple(self._account(account, weights, limits) for account in accounts),
            keys=_keys(await self._keys.valid(), self._monotonic),
            fair_share_threshold_percent=limits.fair_share_threshold_percent,
            strategy=limits.strategy,
        )

    def _account(self, account: Account, weights: Mapping[str, float], limits: Limits) -> AccountPolicy:
        status = AccountStatus(account.status)
        blocked_until = max(account.reset_at or 0.0, account.cooldown_until or 0.0) or None
        return AccountPolicy(
            account_id=account.id,
            kind=AccountKind(account.kind),
            base_url=account.base_url,
            private_upstream=self._accounts.may_be_private(account),
            upstream_account_id=account.upstream_account_id,
            status=status,
            blocked_until=self._monotonic(blocked_until),
            access_token=self._accounts.access_token(account) if status in ROUTABLE else "",
            credential_version=account.credential_version,
            credential_expires_at=self._monotonic(account.access_expires_at),
            refreshed_at=self._monotonic(account.refreshed_at),
            plan=account.plan,
            models=tuple(account.models),
            weight=weights.get(account.id, 1.0) * account.weight,
            caps=_caps(account, limits),
        )

    def _follow_clocks(self) -> None:
        # Kept while it is about right: otherwise every moment would differ by microseconds, and every push be a change.
        # The clocks part when this host sleeps, and when somebody sets the time.
        offset = self._clock() - self._now()
        if abs(offset - self._offset) > CLOCK_TOLERANCE:
            self._offset = offset

    def _monotonic(self, moment: float | None) -> float | None:
        return None if moment is None else moment + self._offset


def _caps(account: Account, limits: Limits) -> tuple[ResourceSettings, ...]:
    own = {"accounts/-/streams": account.max_streams, "accounts/-/response_creates": account.max_response_creates}
    return tuple(_with_limit(limits.resources[family], limit) for family, limit in own.items() if limit is not None)


def _with_limit(settings: ResourceSettings, limit: int) -> ResourceSettings:
    return ResourceSettings(
        name=settings.name,
        limit=limit,
        max_wait=settings.max_wait,
        queue_limit=settings.queue_limit,
        max_hold=settings.max_hold,
        paused=settings.paused,
        reserve=min(settings.reserve, max(0, limit - 1)),
    )


def _keys(keys: Sequence[ApiKey], monotonic: Callable[[float | None], float | None]) -> tuple[KeyPolicy, ...]:
    return tuple(
        KeyPolicy(
            key_id=key.id,
            key_sha256=key.key_sha256,
            expires_at=monotonic(key.expires_at),
            models=tuple(key.models),
            account_ids=tuple(key.account_ids),
            max_streams=key.max_streams,
        )
        for key in keys
    )
