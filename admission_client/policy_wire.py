"""Policies and signals on one side, protobuf messages of `Sync` on the other.

A policy's points in time are readings of this process's monotonic clock; they leave as durations counted from `now`.
A duration saturates (`bounds.span`); any other value that a message cannot hold raises, because a policy that is
changed in silence is another policy.
"""

from admission.v1 import control_service_pb2 as pb

from admission_client import wire
from admission_client.policy import (
    AccountPolicy,
    AccountSignal,
    AccountStatus,
    KeyPolicy,
    KeySignal,
    Policy,
    ResourceSettings,
    SelectionStrategy,
    StatusEvent,
)

_STATUS_TO_WIRE = {
    AccountStatus.ACTIVE: pb.ACCOUNT_STATUS_ACTIVE,
    AccountStatus.RATE_LIMITED: pb.ACCOUNT_STATUS_RATE_LIMITED,
    AccountStatus.QUOTA_EXCEEDED: pb.ACCOUNT_STATUS_QUOTA_EXCEEDED,
    AccountStatus.PAUSED: pb.ACCOUNT_STATUS_PAUSED,
    AccountStatus.REAUTH_REQUIRED: pb.ACCOUNT_STATUS_REAUTH_REQUIRED,
    AccountStatus.DEACTIVATED: pb.ACCOUNT_STATUS_DEACTIVATED,
}
_STATUS_FROM_WIRE: dict[int, AccountStatus] = {number: status for status, number in _STATUS_TO_WIRE.items()}
_STRATEGY_TO_WIRE = {
    SelectionStrategy.CAPACITY_WEIGHTED: pb.SELECTION_STRATEGY_CAPACITY_WEIGHTED,
    SelectionStrategy.ROUND_ROBIN: pb.SELECTION_STRATEGY_ROUND_ROBIN,
}


def snapshot(policy: Policy, *, version: int, now: float) -> pb.SyncRequest:
    """Returns the message that puts a whole policy in force."""
    return pb.SyncRequest(
        snapshot=pb.PolicySnapshot(
            version=version,
            settings=_settings(policy),
            accounts=[_account(account, now) for account in policy.accounts],
            keys=[_key(key, now) for key in policy.keys],
        )
    )


def delta(before: Policy, after: Policy, *, base_version: int, version: int, now: float) -> pb.SyncRequest:
    """Returns the message that turns one policy into another."""
    old_accounts = {account.account_id: account for account in before.accounts}
    old_keys = {key.key_id: key for key in before.keys}
    new_account_ids = {account.account_id for account in after.accounts}
    new_key_ids = {key.key_id for key in after.keys}
    message = pb.PolicyDelta(
        version=version,
        base_version=base_version,
        accounts=[_account(a, now) for a in after.accounts if old_accounts.get(a.account_id) != a],
        removed_account_ids=[account_id for account_id in old_accounts if account_id not in new_account_ids],
        keys=[_key(k, now) for k in after.keys if old_keys.get(k.key_id) != k],
        removed_key_ids=[key_id for key_id in old_keys if key_id not in new_key_ids],
    )
    if _settings(before) != _settings(after):
        message.settings.CopyFrom(_settings(after))
    return pb.SyncRequest(delta=message)


def _settings(policy: Policy) -> pb.PolicySettings:
    return pb.PolicySettings(
        resources=[_resource(resource) for resource in policy.resources],
        fair_share_threshold_percent=policy.fair_share_threshold_percent,
        strategy=_STRATEGY_TO_WIRE[policy.strategy],
    )


def _resource(settings: ResourceSettings) -> pb.ResourceSettings:
    return pb.ResourceSettings(
        name=settings.name,
        limit=settings.limit,
        max_wait=wire.duration(settings.max_wait),
        queue_limit=settings.queue_limit,
        max_hold=wire.duration(settings.max_hold),
        paused=settings.paused,
        reserve=settings.reserve,
    )


def _account(account: AccountPolicy, now: float) -> pb.AccountPolicy:
    message = pb.AccountPolicy(
        account_id=account.account_id,
        kind=wire.account_kind_to_wire(account.kind),
        base_url=account.base_url,
        private_upstream=account.private_upstream,
        upstream_account_id=account.upstream_account_id,
        status=_STATUS_TO_WIRE[account.status],
        access_token=account.access_token,
        credential_version=account.credential_version,
        plan=account.plan,
        models=account.models,
        weight=account.weight,
        caps=[_resource(cap) for cap in account.caps],
    )
    if account.blocked_until is not None:
        message.blocked_for.CopyFrom(wire.duration(account.blocked_until - now))
    if account.credential_expires_at is not None:
        message.credential_expires_in.CopyFrom(wire.duration(account.credential_expires_at - now))
    if account.refreshed_at is not None:
        message.refreshed_ago.CopyFrom(wire.duration(now - account.refreshed_at))
    return message


def _key(key: KeyPolicy, now: float) -> pb.KeyPolicy:
    message = pb.KeyPolicy(key_id=key.key_id, key_sha256=key.key_sha256, models=key.models, account_ids=key.account_ids)
    if key.expires_at is not None:
        message.expires_in.CopyFrom(wire.duration(key.expires_at - now))
    if key.max_streams is not None:
        message.max_streams = key.max_streams
    return message


def account_status(number: int) -> AccountStatus:
    """Returns an account's status; one newer than this client counts as paused, because it may not serve."""
    return _STATUS_FROM_WIRE.get(number, AccountStatus.PAUSED)


def account_signal(message: pb.AccountSignal, *, epoch: int) -> AccountSignal:
    """Returns a signal."""
    return AccountSignal(
        epoch=epoch,
        sequence=message.sequence,
        account_id=message.account_id,
        status_event=_status_event(message.status_event) if message.HasField("status_event") else None,
        windows=tuple(wire.rate_limit_window(window) for window in message.windows),
        credits=wire.account_credits(message.credits) if message.HasField("credits") else None,
        windows_age=wire.seconds(message.windows_age),
        succeeded=message.counters.succeeded,
        failed=message.counters.failed,
        usage=wire.token_usage(message.counters.usage),
    )


def key_signal(message: pb.KeySignal, *, epoch: int) -> KeySignal:
    """Returns what one API key has used."""
    return KeySignal(
        epoch=epoch,
        sequence=message.sequence,
        key_id=message.key_id,
        succeeded=message.counters.succeeded,
        failed=message.counters.failed,
        usage=wire.token_usage(message.counters.usage),
    )


def _status_event(message: pb.StatusEvent) -> StatusEvent:
    return StatusEvent(
        outcome=wire.outcome(message.outcome),
        credential_version=message.credential_version,
        status=message.status,
        code=message.code,
        resets_after=wire.seconds(message.resets_after) if message.HasField("resets_after") else None,
        age=wire.seconds(message.age),
        refresh_wanted=message.refresh_wanted,
    )
