"""The status machine of an account, pure: statuses, events, and one table that says which event leads where.

Rules: every change carries a reason and a time. `paused` is the operator's word and only the operator takes it back:
what happens meanwhile is remembered as the status that resuming leads to. `deactivated` and `reauth_required` end with
a sign-in (or, for the first, an operator), never with good news from usage. A pair that is not in the table changes
nothing: the event says nothing new about an account in that status.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from admission_client.policy import AccountStatus

PLAUSIBLE_RESET = 366 * 86_400.0
"""A reset further ahead than this is an upstream's mistake."""
RATE_LIMIT_MINIMUM = 30.0
QUOTA_DEFAULT_RESET = 3_600.0


class StatusEvent(enum.StrEnum):
    """What can happen to an account."""

    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    CREDENTIAL_DEAD = "credential_dead"
    ACCOUNT_DISABLED = "account_disabled"
    ROOM_AGAIN = "room_again"
    SIGNED_IN = "signed_in"
    CREDENTIAL_REVIVED = "credential_revived"
    PAUSED = "paused"
    RESUMED = "resumed"


_S, _E = AccountStatus, StatusEvent

TRANSITIONS: Mapping[tuple[AccountStatus, StatusEvent], AccountStatus] = MappingProxyType(
    {
        (_S.ACTIVE, _E.RATE_LIMITED): _S.RATE_LIMITED,
        (_S.ACTIVE, _E.QUOTA_EXCEEDED): _S.QUOTA_EXCEEDED,
        (_S.ACTIVE, _E.CREDENTIAL_DEAD): _S.REAUTH_REQUIRED,
        (_S.ACTIVE, _E.ACCOUNT_DISABLED): _S.DEACTIVATED,
        (_S.ACTIVE, _E.PAUSED): _S.PAUSED,
        # A second refusal while limited moves the reset time, so it counts as a change.
        (_S.RATE_LIMITED, _E.RATE_LIMITED): _S.RATE_LIMITED,
        (_S.RATE_LIMITED, _E.QUOTA_EXCEEDED): _S.QUOTA_EXCEEDED,
        (_S.RATE_LIMITED, _E.ROOM_AGAIN): _S.ACTIVE,
        (_S.RATE_LIMITED, _E.RESUMED): _S.ACTIVE,
        (_S.RATE_LIMITED, _E.SIGNED_IN): _S.ACTIVE,
        (_S.RATE_LIMITED, _E.CREDENTIAL_DEAD): _S.REAUTH_REQUIRED,
        (_S.RATE_LIMITED, _E.ACCOUNT_DISABLED): _S.DEACTIVATED,
        (_S.RATE_LIMITED, _E.PAUSED): _S.PAUSED,
        (_S.QUOTA_EXCEEDED, _E.QUOTA_EXCEEDED): _S.QUOTA_EXCEEDED,
        (_S.QUOTA_EXCEEDED, _E.ROOM_AGAIN): _S.ACTIVE,
        (_S.QUOTA_EXCEEDED, _E.RESUMED): _S.ACTIVE,
        (_S.QUOTA_EXCEEDED, _E.SIGNED_IN): _S.ACTIVE,
        (_S.QUOTA_EXCEEDED, _E.CREDENTIAL_DEAD): _S.REAUTH_REQUIRED,
        (_S.QUOTA_EXCEEDED, _E.ACCOUNT_DISABLED): _S.DEACTIVATED,
        (_S.QUOTA_EXCEEDED, _E.PAUSED): _S.PAUSED,
        (_S.REAUTH_REQUIRED, _E.SIGNED_IN): _S.ACTIVE,
        (_S.REAUTH_REQUIRED, _E.CREDENTIAL_REVIVED): _S.ACTIVE,
        (_S.REAUTH_REQUIRED, _E.ACCOUNT_DISABLED): _S.DEACTIVATED,
        (_S.REAUTH_REQUIRED, _E.PAUSED): _S.PAUSED,
        (_S.DEACTIVATED, _E.SIGNED_IN): _S.ACTIVE,
        (_S.DEACTIVATED, _E.RESUMED): _S.ACTIVE,
        (_S.DEACTIVATED, _E.PAUSED): _S.PAUSED,
        (_S.PAUSED, _E.SIGNED_IN): _S.ACTIVE,
        (_S.PAUSED, _E.RESUMED): _S.ACTIVE,
    }
)

ROUTABLE = frozenset({_S.ACTIVE, _S.RATE_LIMITED, _S.QUOTA_EXCEEDED})
"""Statuses in which an account serves, or will again by itself."""
LIMITED = frozenset({_S.RATE_LIMITED, _S.QUOTA_EXCEEDED})
"""Statuses that end with their time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How an account stands. Times are Unix seconds."""

    status: AccountStatus
    reason: str = ""
    changed_at: float = 0.0
    reset_at: float | None = None
    """When `rate_limited` or `quota_exceeded` is over; also while such an account is paused."""
    blocked_at: float | None = None
    """When it began; usage told before that proves nothing."""
    resume_to: AccountStatus | None = None
    """While paused: the status that resuming leads to, when that is not `active`."""
    resume_reason: str = ""


def after(
    standing: Standing, event: StatusEvent, *, now: float, reason: str = "", reset_at: float | None = None
) -> Standing:
    """Returns how the account stands after an event; the same object when nothing changes.

    `reset_at` counts for limits only, and only when it is plausible.
    """
    if standing.status is AccountStatus.PAUSED:
        return _while_paused(standing, event, now=now, reason=reason)
    target = TRANSITIONS.get((standing.status, event))
    if target is None:
        return standing
    if target is AccountStatus.PAUSED:
        remembered = standing.status if standing.status is not AccountStatus.ACTIVE else None
        return replace(
            standing,
            status=target,
            reason=reason,
            changed_at=now,
            resume_to=remembered,
            resume_reason=standing.reason,
        )
    if target in LIMITED:
        return Standing(
            status=target, reason=reason, changed_at=now, blocked_at=now, reset_at=_reset(target, now, reset_at)
        )
    return Standing(status=target, reason=reason, changed_at=now)


def room_again(
    standing: Standing, *, now: float, used_percent: float | None, told_at: float, has_credits: bool
) -> bool:
    """Returns whether a limited account may serve again: its time is over, or usage told after it was blocked says so.

    An upstream may reset a window early, so room in fresh usage counts before `reset_at`; usage that still says 100 %
    never shortens a block. For the first moments usage lags behind the refusal and proves nothing.
    """
    if standing.status not in LIMITED:
        return False
    if standing.reset_at is not None and now >= standing.reset_at:
        return True
    blocked_at = standing.blocked_at if standing.blocked_at is not None else standing.changed_at
    settle = 30.0 if standing.status is AccountStatus.RATE_LIMITED else 120.0
    if told_at < blocked_at + settle:
        return False
    if standing.status is AccountStatus.QUOTA_EXCEEDED and has_credits:
        return True
    return used_percent is not None and used_percent < 100.0


def _while_paused(standing: Standing, event: StatusEvent, *, now: float, reason: str) -> Standing:
    if event is StatusEvent.RESUMED:
        target = standing.resume_to or AccountStatus.ACTIVE
        if target in LIMITED and standing.reset_at is not None and now < standing.reset_at:
            # A pause does not shorten a limit; resuming the limited account again says that it is over.
            return replace(
                standing,
                status=target,
                reason=standing.resume_reason,
                changed_at=now,
                resume_to=None,
                resume_reason="",
            )
        if target in LIMITED or target is AccountStatus.DEACTIVATED:  # resuming is what reactivates the latter
            target = AccountStatus.ACTIVE
        kept = standing.resume_reason if target is not AccountStatus.ACTIVE else reason
        return Standing(status=target, reason=kept, changed_at=now)
    if event is StatusEvent.SIGNED_IN:
        return Standing(status=AccountStatus.ACTIVE, reason=reason, changed_at=now)
    if event is StatusEvent.CREDENTIAL_REVIVED and standing.resume_to is AccountStatus.REAUTH_REQUIRED:
        return replace(standing, resume_to=None, resume_reason="")
    met = {
        StatusEvent.CREDENTIAL_DEAD: AccountStatus.REAUTH_REQUIRED,
        StatusEvent.ACCOUNT_DISABLED: AccountStatus.DEACTIVATED,
    }.get(event)
    if met is None or standing.resume_to in {met, AccountStatus.DEACTIVATED}:
        return standing
    return replace(standing, resume_to=met, resume_reason=reason, reset_at=None, blocked_at=None)


def _reset(status: AccountStatus, now: float, told: float | None) -> float:
    if told is not None and now < told <= now + PLAUSIBLE_RESET:
        return told
    return now + (RATE_LIMIT_MINIMUM if status is AccountStatus.RATE_LIMITED else QUOTA_DEFAULT_RESET)
