"""Between protobuf messages and the values of the core: nothing else. Checks of form are made here, and name the field.

Durations travel; a missing one is None. What is read for every acquire is written for speed: each access of a protobuf
field costs about as much as a step of the ledger.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import cast

from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb
from admission.v1 import control_service_pb2 as control_pb
from google.protobuf.duration_pb2 import Duration

from admission_server.accounts import Account, Credits, Outcome, RateLimitWindow, Report, TokenUsage
from admission_server.decisions import (
    SENTENCES,
    AccountNeeds,
    Acquire,
    Denied,
    EndReason,
    Failed,
    Heartbeat,
    HeldLease,
    HeldList,
    Reason,
)
from admission_server.errors import Malformed
from admission_server.policy import (
    AccountPolicy,
    KeyPolicy,
    PolicyDelta,
    PolicySettings,
    PolicySnapshot,
    ResourceSettings,
    Status,
    Strategy,
)
from admission_server.resources import Granted

LONGEST_TEXT = 128
LONGEST_NAME = 2 * LONGEST_TEXT
MOST_RESOURCES = 8
MOST_AFFINITY_KEYS = 4
MOST_AVOIDED = 8
MOST_OWNED_KEYS = 8
MOST_WINDOWS = 8
MOST_ACQUIRES = 5_000
MOST_REPORTS = 10_000
MOST_RELEASES = 20_000
"""What one message may say: more would keep everybody else waiting while it is read."""
LONGEST = 100 * 366 * 86400.0
"""A century, in seconds: longer than anything here, and small enough to be added to any clock and sent again."""
MOST_TOKENS = 10**12
"""Tokens that one report may count: what is more would only make sums overflow."""

_REASONS = {r: cast("pb.DenialReason", pb.DenialReason.Value(f"DENIAL_REASON_{r.name}")) for r in Reason}
_ENDINGS = {r: cast("session_pb.EndReason", session_pb.EndReason.Value(f"END_REASON_{r.name}")) for r in EndReason}
OUTCOME_NUMBERS = {o: cast("pb.Outcome", pb.Outcome.Value(f"OUTCOME_{o.name}")) for o in Outcome}
_OUTCOMES = {number: outcome for outcome, number in OUTCOME_NUMBERS.items()}
_KINDS = {pb.ACCOUNT_KIND_UNSPECIFIED: "", pb.ACCOUNT_KIND_CHATGPT: "chatgpt", pb.ACCOUNT_KIND_API_KEY: "api_key"}
KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}
STATUS_NUMBERS = {
    s: cast("control_pb.AccountStatus", control_pb.AccountStatus.Value(f"ACCOUNT_STATUS_{s.name}")) for s in Status
}
_STATUSES = {number: status for status, number in STATUS_NUMBERS.items()}
_STRATEGIES = {
    control_pb.SELECTION_STRATEGY_UNSPECIFIED: Strategy.CAPACITY_WEIGHTED,
    control_pb.SELECTION_STRATEGY_CAPACITY_WEIGHTED: Strategy.CAPACITY_WEIGHTED,
    control_pb.SELECTION_STRATEGY_ROUND_ROBIN: Strategy.ROUND_ROBIN,
}
_INVALID_ARGUMENT = 3


def seconds(duration: Duration) -> float:
    """Returns a duration in seconds, a century at most."""
    return min(max(duration.seconds + duration.nanos / 1e9, -LONGEST), LONGEST)


def duration(value: float) -> Duration:
    """Returns seconds as a duration, a century at most: what cannot be written would cost the stream it is said on."""
    value = max(value, -LONGEST) if value < LONGEST else LONGEST
    whole = int(value)
    return Duration(seconds=whole, nanos=int((value - whole) * 1e9))


# --- from holders ----------------------------------------------------------------------------------------------------


def acquire_from(message: pb.Acquire) -> Acquire:
    """Reads an acquire. Raises `Malformed`."""
    request_id = message.request_id
    if not request_id or _is_longer(request_id, LONGEST_TEXT):
        raise Malformed(f"must have 1 to {LONGEST_TEXT} bytes", field="request_id")
    # A slice: `tuple(names)` takes twice as long, for it walks until it is told that it is out of bounds.
    resources = tuple(message.resources[:])
    if len(resources) != 1 or _is_longer(resources[0], LONGEST_NAME):
        resources = _checked(resources)
    acquire = Acquire(request_id=request_id, resources=resources)
    if peer := message.peer:
        acquire.peer = _text(peer, "peer")
    elif message.HasField("key_sha256"):
        acquire.key_sha256 = message.key_sha256
        if len(acquire.key_sha256) != 32:
            raise Malformed("must be 32 bytes", field="key_sha256")
    if message.HasField("account"):
        acquire.needs = _needs_from(message.account)
    if message.HasField("max_wait"):
        acquire.max_wait = seconds(message.max_wait)
        if acquire.max_wait < 0:
            raise Malformed("must not be negative", field="max_wait")
    return acquire


def hello_from(message: session_pb.Hello) -> tuple[str, str, HeldList | None]:
    """Reads a hello: session id, instance, what is held if it says so. Raises `Malformed`."""
    check_instance(message.instance, "hello.instance")
    check_session_id(message.session_id, "hello.session_id")
    held = _held_from(message.held, "hello.held") if message.HasField("held") else None
    return message.session_id, message.instance, held


def heartbeat_from(message: session_pb.Heartbeat) -> Heartbeat:
    """Reads a heartbeat. Raises `Malformed`."""
    return Heartbeat(
        sequence=message.sequence,
        seen=message.seen,
        lease_count=message.lease_count,
        lease_digest=message.lease_digest,
        held=_held_from(message.held, "heartbeat.held") if message.HasField("held") else None,
    )


def report_from(message: pb.AccountReport) -> Report:
    """Reads a report. Raises `Malformed`."""
    if len(message.owned_keys) > MOST_OWNED_KEYS or any(_is_longer(key, LONGEST_TEXT) for key in message.owned_keys):
        raise Malformed(f"at most {MOST_OWNED_KEYS} of at most {LONGEST_TEXT} bytes", field="owned_keys")
    if len(message.windows) > MOST_WINDOWS:
        raise Malformed(f"at most {MOST_WINDOWS}", field="windows")
    usage = message.usage
    return Report(
        account_id=message.account_id,
        credential_version=message.credential_version,
        outcome=_OUTCOMES.get(message.outcome, Outcome.UNSPECIFIED),
        status=message.status,
        code=_text(message.code, "code"),
        resets_after=seconds(message.resets_after) if message.HasField("resets_after") else None,
        usage=TokenUsage(
            input_tokens=min(usage.input_tokens, MOST_TOKENS),
            cached_input_tokens=min(usage.cached_input_tokens, MOST_TOKENS),
            output_tokens=min(usage.output_tokens, MOST_TOKENS),
            reasoning_tokens=min(usage.reasoning_tokens, MOST_TOKENS),
        )
        if message.HasField("usage")
        else None,
        windows=tuple(
            RateLimitWindow(
                length=seconds(window.length),
                used_percent=window.used_percent,
                resets_after=seconds(window.resets_after) if window.HasField("resets_after") else None,
            )
            for window in message.windows
            if math.isfinite(window.used_percent)
        ),
        credits=Credits(
            has_credits=message.credits.has_credits,
            unlimited=message.credits.unlimited,
            balance=_text(message.credits.balance, "credits.balance"),
        )
        if message.HasField("credits")
        else None,
        owned_keys=tuple(message.owned_keys),
        key_sha256=message.key_sha256,
    )


def withdrawn_in(release: pb.Release) -> str:
    """Returns the request id of a release, none when no acquire can have it: there is nothing to remember then."""
    request_id = release.request_id
    return "" if _is_longer(request_id, LONGEST_TEXT) else request_id


def check_hello(message: session_pb.Hello, *, most_leases: int) -> None:
    """Raises `Malformed` when a hello claims more leases than a session may have."""
    _check_count(len(message.held.leases), most_leases, "hello.held.leases")


def check_counts(message: session_pb.SessionRequest, *, most_leases: int) -> None:
    """Raises `Malformed` when a message says more at once than a holder may have to say."""
    _check_count(len(message.acquires), MOST_ACQUIRES, "acquires")
    check_releases(message.releases, message.reports, most_leases=most_leases)
    if message.HasField("heartbeat"):
        _check_count(len(message.heartbeat.held.leases), most_leases, "heartbeat.held.leases")


def check_releases(releases: Sequence[pb.Release], reports: Sequence[pb.AccountReport], *, most_leases: int) -> None:
    """Raises `Malformed` when there are more releases or reports than a holder may have to say."""
    _check_count(len(releases), MOST_RELEASES, "releases")
    if releases:
        _check_count(sum([len(release.lease_ids) for release in releases]), most_leases, "releases.lease_ids")
    _check_count(len(reports), MOST_REPORTS, "reports")


def check_session_id(value: str, field: str) -> None:
    """Raises `Malformed` unless a session id is one."""
    if not 8 <= len(value) <= 64 or not all(c in "abcdefghijklmnopqrstuvwxyz0123456789_" for c in value):
        raise Malformed("must have 8 to 64 characters of [a-z0-9_]", field=field)


def check_instance(value: str, field: str) -> None:
    """Raises `Malformed` unless an instance name is one."""
    if not value or _is_longer(value, LONGEST_TEXT):
        raise Malformed(f"must have 1 to {LONGEST_TEXT} bytes", field=field)


def _check_count(count: int, most: int, field: str) -> None:
    if count > most:
        raise Malformed(f"at most {most} in one message", field=field)


@functools.lru_cache(maxsize=256)
def _checked(resources: tuple[str, ...]) -> tuple[str, ...]:
    """Returns names that may be asked for together. Those of work come again and again: remembered, they cost 0.1 µs in
    place of 1.4. Raises `Malformed`.
    """
    if not 1 <= len(resources) <= MOST_RESOURCES:
        raise Malformed(f"must be 1 to {MOST_RESOURCES} names", field="resources")
    for i, name in enumerate(resources):
        _text(name, f"resources[{i}]", longest=LONGEST_NAME)
        if name in resources[:i]:
            raise Malformed("is named twice", field=f"resources[{i}]")
    return resources


def _needs_from(message: pb.AccountNeeds) -> AccountNeeds:
    affinity_keys = tuple(message.affinity_keys[:])
    avoid_account_ids = tuple(message.avoid_account_ids[:])
    kind = _KINDS.get(message.kind)
    if len(affinity_keys) > MOST_AFFINITY_KEYS:
        raise Malformed(f"at most {MOST_AFFINITY_KEYS}", field="account.affinity_keys")
    if len(avoid_account_ids) > MOST_AVOIDED:
        raise Malformed(f"at most {MOST_AVOIDED}", field="account.avoid_account_ids")
    if kind is None:
        raise Malformed("is unknown", field="account.kind")
    needs = AccountNeeds(
        model=_text(message.model, "account.model"),
        kind=kind,
        affinity_keys=affinity_keys,
        preferred_owner_key=_text(message.preferred_owner_key, "account.preferred_owner_key"),
        required_owner_key=_text(message.required_owner_key, "account.required_owner_key"),
        required_account_id=_text(message.required_account_id, "account.required_account_id"),
        avoid_account_ids=avoid_account_ids,
        newer_than_credential_version=message.newer_than_credential_version,
        reattach=message.reattach,
    )
    _check_texts(affinity_keys, "account.affinity_keys")
    _check_texts(avoid_account_ids, "account.avoid_account_ids")
    return needs


def _held_from(message: session_pb.LeaseList, path: str) -> HeldList:
    leases = []
    for i, held in enumerate(message.leases):
        flow = held.WhichOneof("flow")
        leases.append(
            HeldLease(
                lease_id=held.lease_id,
                resource=_text(held.resource, f"{path}.leases[{i}].resource", longest=LONGEST_NAME),
                account_id=_text(held.account_id, f"{path}.leases[{i}].account_id"),
                request_id=_text(held.request_id, f"{path}.leases[{i}].request_id"),
                flow=f"key:{held.key_id}" if flow == "key_id" else f"peer:{held.peer}" if flow == "peer" else "",
                age=max(0.0, seconds(held.age)),
            )
        )
    return HeldList(seen=message.seen, leases=tuple(leases))


def _check_texts(values: Sequence[str], field: str) -> None:
    for i, value in enumerate(values):
        if _is_longer(value, LONGEST_TEXT):
            raise Malformed(f"must have at most {LONGEST_TEXT} bytes", field=f"{field}[{i}]")


def _text(value: str, field: str, *, longest: int = LONGEST_TEXT) -> str:
    if _is_longer(value, longest):
        raise Malformed(f"must have at most {longest} bytes", field=field)
    return value


def _is_longer(value: str, longest: int) -> bool:
    """Returns whether a text has more bytes than it may; almost none is anything but ASCII."""
    return len(value) > longest or (not value.isascii() and len(value.encode()) > longest)


# --- to holders ------------------------------------------------------------------------------------------------------


def answer_of(answer: Granted | Denied | Failed, *, with_credential: bool) -> pb.Answer:
    """Returns an answer as a message. Access tokens go out only `with_credential`."""
    message = pb.Answer()
    fill_answer(message, answer, with_credential=with_credential)
    return message


def fill_answer(message: pb.Answer, answer: Granted | Denied | Failed, *, with_credential: bool) -> None:
    """Writes an answer into an empty message: in place, which costs half of making one and copying it."""
    message.request_id = answer.request_id
    if isinstance(answer, Granted):
        grant = message.grant
        add_lease = grant.lease_ids.append
        for lease in answer.leases:
            add_lease(lease.lease_id)
        if answer.key_id:
            grant.key_id = answer.key_id
        if answer.account is not None:
            _fill_account(grant.account, answer, answer.account, with_credential=with_credential)
    elif isinstance(answer, Denied):
        _fill_denial(message.denial, answer)
    else:
        message.failure.code = _INVALID_ARGUMENT
        message.failure.field = answer.field
        message.failure.message = answer.message


def ended_of(ended: Iterable[tuple[int, EndReason]]) -> list[session_pb.EndedLease]:
    """Writes leases that ended without their holder's doing."""
    return [session_pb.EndedLease(lease_id=lease_id, reason=_ENDINGS[reason]) for lease_id, reason in ended]


def _fill_account(granted: pb.AccountGrant, answer: Granted, account: Account, *, with_credential: bool) -> None:
    policy, credential = account.policy, answer.credential
    granted.account_id = account.account_id
    granted.kind = KIND_NUMBERS[policy.kind]
    granted.base_url = policy.base_url
    granted.private_upstream = policy.private_upstream
    granted.upstream_account_id = policy.upstream_account_id
    granted.owner_moved = answer.owner_moved
    granted.streams_held = answer.streams_held
    if credential is not None:
        granted.credential_version = credential.version
        if with_credential:
            granted.access_token = credential.access_token


def _fill_denial(denial: pb.Denial, answer: Denied) -> None:
    denial.reason = _REASONS[answer.reason]
    denial.resource = answer.resource
    denial.limit = answer.limit
    denial.held = answer.held
    denial.waiters = answer.waiters
    denial.message = SENTENCES[answer.reason]
    if answer.retry_after is not None:
        denial.retry_after.CopyFrom(duration(answer.retry_after))


# --- from and to the controller --------------------------------------------------------------------------------------


def snapshot_from(message: control_pb.PolicySnapshot) -> PolicySnapshot:
    """Reads a policy snapshot. Raises `Malformed`."""
    return PolicySnapshot(
        version=message.version,
        settings=_settings_from(message.settings, "snapshot.settings"),
        accounts=_accounts_from(message.accounts, "snapshot.accounts"),
        keys=_keys_from(message.keys),
    )


def delta_from(message: control_pb.PolicyDelta) -> PolicyDelta:
    """Reads a policy delta. Raises `Malformed`."""
    return PolicyDelta(
        version=message.version,
        base_version=message.base_version,
        settings=_settings_from(message.settings, "delta.settings") if message.HasField("settings") else None,
        accounts=_accounts_from(message.accounts, "delta.accounts"),
        removed_account_ids=tuple(message.removed_account_ids),
        keys=_keys_from(message.keys),
        removed_key_ids=tuple(message.removed_key_ids),
    )


def _settings_from(message: control_pb.PolicySettings, path: str) -> PolicySettings:
    if message.strategy not in _STRATEGIES:
        raise Malformed("is unknown", field=f"{path}.strategy")
    threshold = message.fair_share_threshold_percent if message.HasField("fair_share_threshold_percent") else 80
    return PolicySettings(
        resources=tuple(_resource_from(resource) for resource in message.resources),
        fair_share_threshold_percent=threshold,
        strategy=_STRATEGIES[message.strategy],
    )


def _resource_from(message: control_pb.ResourceSettings) -> ResourceSettings:
    return ResourceSettings(
        name=message.name,
        limit=message.limit,
        max_wait=seconds(message.max_wait),
        queue_limit=message.queue_limit,
        max_hold=seconds(message.max_hold),
        paused=message.paused,
        reserve=message.reserve,
    )


def _accounts_from(messages: Iterable[control_pb.AccountPolicy], path: str) -> tuple[AccountPolicy, ...]:
    accounts = []
    for i, message in enumerate(messages):
        if message.status not in _STATUSES:
            raise Malformed("must be said", field=f"{path}[{i}].status")
        expires, refreshed = message.credential_expires_in, message.refreshed_ago
        accounts.append(
            AccountPolicy(
                account_id=message.account_id,
                kind=_KINDS.get(message.kind, ""),
                base_url=message.base_url,
                private_upstream=message.private_upstream,
                upstream_account_id=message.upstream_account_id,
                status=_STATUSES[message.status],
                blocked_for=seconds(message.blocked_for) if message.HasField("blocked_for") else None,
                access_token=message.access_token,
                credential_version=message.credential_version,
                credential_expires_in=seconds(expires) if message.HasField("credential_expires_in") else None,
                refreshed_ago=seconds(refreshed) if message.HasField("refreshed_ago") else None,
                plan=message.plan,
                models=tuple(message.models),
                weight=message.weight,
                caps=tuple(_resource_from(cap) for cap in message.caps),
            )
        )
    return tuple(accounts)


def _keys_from(messages: Iterable[control_pb.KeyPolicy]) -> tuple[KeyPolicy, ...]:
    return tuple(
        KeyPolicy(
            key_id=message.key_id,
            key_sha256=message.key_sha256,
            expires_in=seconds(message.expires_in) if message.HasField("expires_in") else None,
            models=tuple(message.models),
            account_ids=tuple(message.account_ids),
            max_streams=message.max_streams if message.HasField("max_streams") else None,
        )
        for message in messages
    )
