"""Values on one side, protobuf messages of the session on the other. Nothing here decides anything.

Empty fields are left out of messages instead of being set to their default: building a message is what an acquire
costs most, and an acquire of a lane sets two fields. Reports carry numbers and text of strangers: they are brought
within what a message can hold. An acquire that cannot be said raises instead, because its caller can be told.
"""

from admission.v1 import admission_pb2 as pb
from admission.v1 import admission_service_pb2 as session_pb
from google.protobuf.duration_pb2 import Duration

from admission_client import bounds
from admission_client.lease import (
    AccountKind,
    AccountNeeds,
    AccountReport,
    Credits,
    Denial,
    DenialReason,
    GrantedAccount,
    Outcome,
    RateLimitWindow,
    TokenUsage,
)

_MOST_OWNED_KEYS = 8
_MOST_WINDOWS = 8
_LARGEST_ACQUIRE = 16 * 1024
"""Bytes. A sound one has a few hundred, and one of megabytes would cost everybody the stream."""
_TEMPLATES = 1_024
_KIND_TO_WIRE = {
    AccountKind.CHATGPT: pb.ACCOUNT_KIND_CHATGPT,
    AccountKind.API_KEY: pb.ACCOUNT_KIND_API_KEY,
}
_KIND_FROM_WIRE: dict[int, AccountKind] = {number: kind for kind, number in _KIND_TO_WIRE.items()}
_OUTCOME_TO_WIRE = {
    Outcome.SUCCEEDED: pb.OUTCOME_SUCCEEDED,
    Outcome.NEUTRAL: pb.OUTCOME_NEUTRAL,
    Outcome.TRANSIENT_ERROR: pb.OUTCOME_TRANSIENT_ERROR,
    Outcome.RATE_LIMITED: pb.OUTCOME_RATE_LIMITED,
    Outcome.QUOTA_EXCEEDED: pb.OUTCOME_QUOTA_EXCEEDED,
    Outcome.AUTH_REJECTED: pb.OUTCOME_AUTH_REJECTED,
    Outcome.ACCOUNT_DISABLED: pb.OUTCOME_ACCOUNT_DISABLED,
    Outcome.MISCONFIGURED: pb.OUTCOME_MISCONFIGURED,
}
_OUTCOME_FROM_WIRE: dict[int, Outcome] = {number: ending for ending, number in _OUTCOME_TO_WIRE.items()}
_REASON_FROM_WIRE = {
    pb.DenialReason.Value(f"DENIAL_REASON_{reason.name}"): reason
    for reason in DenialReason
    if reason is not DenialReason.UNKNOWN
}


def duration(seconds: float) -> Duration:
    """Returns a length of time as a message; never fails for a number, see `bounds.span`."""
    nanos = round(bounds.span(seconds) * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def seconds(message: Duration) -> float:
    """Returns a length of time in seconds."""
    return message.seconds + message.nanos / 1e9


class AcquireWriter:
    """Writes acquires into messages.

    Those of one flow for the same resources differ in little but their request id, so they are copies of one template:
    that costs 0.5 µs where setting their fields costs 1.0. Templates that are in use are few; they are bounded all the
    same.
    """

    def __init__(self) -> None:
        self._templates: dict[tuple[tuple[str, ...], bytes | None, str | None], pb.Acquire] = {}

    def fill(
        self,
        acquire: pb.Acquire,
        request_id: str,
        resources: tuple[str, ...],
        *,
        key_sha256: bytes | None,
        peer: str | None,
        needs: AccountNeeds | None,
        max_wait: float | None,
    ) -> None:
        """Writes one acquire into an empty message. Raises when it cannot be said."""
        form = (resources, key_sha256, peer)
        template = self._templates.get(form)
        if template is None:
            template = _template(resources, key_sha256, peer)
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            self._templates[form] = template
        acquire.CopyFrom(template)
        acquire.request_id = request_id
        if max_wait is not None:
            acquire.max_wait.CopyFrom(duration(max_wait))
        if needs is not None:
            _fill_needs(acquire.account, needs)
            _check_size(acquire)


def _template(resources: tuple[str, ...], key_sha256: bytes | None, peer: str | None) -> pb.Acquire:
    template = pb.Acquire(resources=resources)
    if key_sha256 is not None:
        template.key_sha256 = key_sha256
    elif peer is not None:
        template.peer = peer
    _check_size(template)
    return template


def _check_size(acquire: pb.Acquire) -> None:
    if acquire.ByteSize() > _LARGEST_ACQUIRE:
        raise ValueError("the acquire is too large")


def _fill_needs(message: pb.AccountNeeds, needs: AccountNeeds) -> None:
    message.SetInParent()
    if needs.model:
        message.model = needs.model
    if needs.kind is not None:
        message.kind = _KIND_TO_WIRE[needs.kind]
    if needs.affinity_keys:
        message.affinity_keys.extend(needs.affinity_keys)
    if needs.preferred_owner_key:
        message.preferred_owner_key = needs.preferred_owner_key
    if needs.required_owner_key:
        message.required_owner_key = needs.required_owner_key
    if needs.required_account_id:
        message.required_account_id = needs.required_account_id
    if needs.avoid_account_ids:
        message.avoid_account_ids.extend(needs.avoid_account_ids)
    if needs.newer_than_credential_version:
        message.newer_than_credential_version = needs.newer_than_credential_version
    if needs.reattach:
        message.reattach = True


def add_held_lease(
    message: session_pb.LeaseList,
    *,
    lease_id: int,
    resource: str,
    account_id: str,
    request_id: str,
    key_id: str,
    peer: str | None,
    age: float,
) -> None:
    """Adds one lease to a complete list."""
    held = message.leases.add(
        lease_id=lease_id, resource=resource, account_id=account_id, request_id=request_id, age=duration(age)
    )
    if key_id:
        held.key_id = key_id
    elif peer is not None:
        held.peer = peer


def granted_account(message: pb.AccountGrant) -> GrantedAccount:
    """Returns the account of a grant."""
    return GrantedAccount(
        account_id=message.account_id,
        kind=account_kind(message.kind),
        base_url=message.base_url,
        private_upstream=message.private_upstream,
        upstream_account_id=message.upstream_account_id,
        access_token=message.access_token,
        credential_version=message.credential_version,
        owner_moved=message.owner_moved,
        streams_held=message.streams_held,
    )


def denial(message: pb.Denial) -> Denial:
    """Returns a denial; its reason is UNKNOWN when it is newer than this client."""
    return Denial(
        reason=_REASON_FROM_WIRE.get(message.reason, DenialReason.UNKNOWN),
        resource=message.resource,
        limit=message.limit,
        held=message.held,
        waiters=message.waiters,
        retry_after=seconds(message.retry_after) if message.HasField("retry_after") else None,
        message=message.message,
    )


def account_kind(number: int) -> AccountKind:
    """Returns an account's kind; one newer than this client counts as an API key, which is the plainer dialect."""
    return _KIND_FROM_WIRE.get(number, AccountKind.API_KEY)


def account_kind_to_wire(kind: AccountKind) -> pb.AccountKind:
    """Returns the number of an account's kind."""
    return _KIND_TO_WIRE[kind]


def outcome(number: int) -> Outcome:
    """Returns an outcome; one newer than this client teaches nothing about the account."""
    return _OUTCOME_FROM_WIRE.get(number, Outcome.NEUTRAL)


def account_report(report: AccountReport) -> pb.AccountReport:
    """Returns a report as a message. Raises only for values of a wrong type."""
    message = pb.AccountReport(account_id=bounds.text(report.account_id))
    if report.credential_version:
        message.credential_version = bounds.uint64(report.credential_version)
    if report.outcome is not None:
        message.outcome = _OUTCOME_TO_WIRE[report.outcome]
    if report.status:
        message.status = bounds.uint32(report.status)
    if report.code:
        message.code = bounds.text(report.code)
    if report.resets_after is not None:
        message.resets_after.CopyFrom(duration(report.resets_after))
    if report.usage is not None:
        message.usage.CopyFrom(_token_usage_to_wire(report.usage))
    for window in report.windows[-_MOST_WINDOWS:]:
        added = message.windows.add(length=duration(window.length), used_percent=window.used_percent)
        if window.resets_after is not None:
            added.resets_after.CopyFrom(duration(window.resets_after))
    if report.credits is not None:
        message.credits.CopyFrom(
            pb.Credits(
                has_credits=report.credits.has_credits,
                unlimited=report.credits.unlimited,
                balance=bounds.text(report.credits.balance),
            )
        )
    if report.owned_keys:
        # A key that had to be changed would bind another conversation: those that do not fit are left out.
        fitting = [key for key in report.owned_keys if bounds.text(key) == key]
        message.owned_keys.extend(fitting[:_MOST_OWNED_KEYS])
    if report.key_sha256:
        message.key_sha256 = report.key_sha256
    return message


def _token_usage_to_wire(usage: TokenUsage) -> pb.TokenUsage:
    return pb.TokenUsage(
        input_tokens=bounds.uint64(usage.input_tokens),
        cached_input_tokens=bounds.uint64(usage.cached_input_tokens),
        output_tokens=bounds.uint64(usage.output_tokens),
        reasoning_tokens=bounds.uint64(usage.reasoning_tokens),
    )


def token_usage(message: pb.TokenUsage) -> TokenUsage:
    """Returns token counts."""
    return TokenUsage(
        input_tokens=message.input_tokens,
        cached_input_tokens=message.cached_input_tokens,
        output_tokens=message.output_tokens,
        reasoning_tokens=message.reasoning_tokens,
    )


def rate_limit_window(message: pb.RateLimitWindow) -> RateLimitWindow:
    """Returns a rate limit window."""
    return RateLimitWindow(
        length=seconds(message.length),
        used_percent=message.used_percent,
        resets_after=seconds(message.resets_after) if message.HasField("resets_after") else None,
    )


def account_credits(message: pb.Credits) -> Credits:
    """Returns an account's credits."""
    return Credits(has_credits=message.has_credits, unlimited=message.unlimited, balance=message.balance)
