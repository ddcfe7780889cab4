import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AccountKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCOUNT_KIND_UNSPECIFIED: _ClassVar[AccountKind]
    ACCOUNT_KIND_CHATGPT: _ClassVar[AccountKind]
    ACCOUNT_KIND_API_KEY: _ClassVar[AccountKind]

class DenialReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DENIAL_REASON_UNSPECIFIED: _ClassVar[DenialReason]
    DENIAL_REASON_LANE_FULL: _ClassVar[DenialReason]
    DENIAL_REASON_STAGE_FULL: _ClassVar[DenialReason]
    DENIAL_REASON_ACCOUNT_STREAMS_FULL: _ClassVar[DenialReason]
    DENIAL_REASON_ACCOUNT_RESPONSE_CREATES_FULL: _ClassVar[DenialReason]
    DENIAL_REASON_KEY_STREAMS_FULL: _ClassVar[DenialReason]
    DENIAL_REASON_FAIR_SHARE: _ClassVar[DenialReason]
    DENIAL_REASON_QUEUE_FULL: _ClassVar[DenialReason]
    DENIAL_REASON_PAUSED: _ClassVar[DenialReason]
    DENIAL_REASON_WITHDRAWN: _ClassVar[DenialReason]
    DENIAL_REASON_RECOVERING: _ClassVar[DenialReason]
    DENIAL_REASON_DRAINING: _ClassVar[DenialReason]
    DENIAL_REASON_SERVER_OVERLOADED: _ClassVar[DenialReason]
    DENIAL_REASON_POLICY_UNAVAILABLE: _ClassVar[DenialReason]
    DENIAL_REASON_KEY_UNKNOWN: _ClassVar[DenialReason]
    DENIAL_REASON_KEY_EXPIRED: _ClassVar[DenialReason]
    DENIAL_REASON_MODEL_NOT_ALLOWED: _ClassVar[DenialReason]
    DENIAL_REASON_NO_ACCOUNT: _ClassVar[DenialReason]
    DENIAL_REASON_UNSUPPORTED_BY_ACCOUNT: _ClassVar[DenialReason]
    DENIAL_REASON_QUOTA_EXHAUSTED: _ClassVar[DenialReason]
    DENIAL_REASON_COOLING_DOWN: _ClassVar[DenialReason]
    DENIAL_REASON_CREDENTIAL_UNAVAILABLE: _ClassVar[DenialReason]
    DENIAL_REASON_OWNER_GONE: _ClassVar[DenialReason]
    DENIAL_REASON_OWNER_BUSY: _ClassVar[DenialReason]
    DENIAL_REASON_SESSION_FULL: _ClassVar[DenialReason]
    DENIAL_REASON_SESSION_STALE: _ClassVar[DenialReason]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_SUCCEEDED: _ClassVar[Outcome]
    OUTCOME_NEUTRAL: _ClassVar[Outcome]
    OUTCOME_TRANSIENT_ERROR: _ClassVar[Outcome]
    OUTCOME_RATE_LIMITED: _ClassVar[Outcome]
    OUTCOME_QUOTA_EXCEEDED: _ClassVar[Outcome]
    OUTCOME_AUTH_REJECTED: _ClassVar[Outcome]
    OUTCOME_ACCOUNT_DISABLED: _ClassVar[Outcome]
    OUTCOME_MISCONFIGURED: _ClassVar[Outcome]
ACCOUNT_KIND_UNSPECIFIED: AccountKind
ACCOUNT_KIND_CHATGPT: AccountKind
ACCOUNT_KIND_API_KEY: AccountKind
DENIAL_REASON_UNSPECIFIED: DenialReason
DENIAL_REASON_LANE_FULL: DenialReason
DENIAL_REASON_STAGE_FULL: DenialReason
DENIAL_REASON_ACCOUNT_STREAMS_FULL: DenialReason
DENIAL_REASON_ACCOUNT_RESPONSE_CREATES_FULL: DenialReason
DENIAL_REASON_KEY_STREAMS_FULL: DenialReason
DENIAL_REASON_FAIR_SHARE: DenialReason
DENIAL_REASON_QUEUE_FULL: DenialReason
DENIAL_REASON_PAUSED: DenialReason
DENIAL_REASON_WITHDRAWN: DenialReason
DENIAL_REASON_RECOVERING: DenialReason
DENIAL_REASON_DRAINING: DenialReason
DENIAL_REASON_SERVER_OVERLOADED: DenialReason
DENIAL_REASON_POLICY_UNAVAILABLE: DenialReason
DENIAL_REASON_KEY_UNKNOWN: DenialReason
DENIAL_REASON_KEY_EXPIRED: DenialReason
DENIAL_REASON_MODEL_NOT_ALLOWED: DenialReason
DENIAL_REASON_NO_ACCOUNT: DenialReason
DENIAL_REASON_UNSUPPORTED_BY_ACCOUNT: DenialReason
DENIAL_REASON_QUOTA_EXHAUSTED: DenialReason
DENIAL_REASON_COOLING_DOWN: DenialReason
DENIAL_REASON_CREDENTIAL_UNAVAILABLE: DenialReason
DENIAL_REASON_OWNER_GONE: DenialReason
DENIAL_REASON_OWNER_BUSY: DenialReason
DENIAL_REASON_SESSION_FULL: DenialReason
DENIAL_REASON_SESSION_STALE: DenialReason
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_SUCCEEDED: Outcome
OUTCOME_NEUTRAL: Outcome
OUTCOME_TRANSIENT_ERROR: Outcome
OUTCOME_RATE_LIMITED: Outcome
OUTCOME_QUOTA_EXCEEDED: Outcome
OUTCOME_AUTH_REJECTED: Outcome
OUTCOME_ACCOUNT_DISABLED: Outcome
OUTCOME_MISCONFIGURED: Outcome

class Acquire(_message.Message):
    __slots__ = ("request_id", "resources", "key_sha256", "peer", "account", "max_wait")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    KEY_SHA256_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    resources: _containers.RepeatedScalarFieldContainer[str]
    key_sha256: bytes
    peer: str
    account: AccountNeeds
    max_wait: _duration_pb2.Duration
    def __init__(self, request_id: _Optional[str] = ..., resources: _Optional[_Iterable[str]] = ..., key_sha256: _Optional[bytes] = ..., peer: _Optional[str] = ..., account: _Optional[_Union[AccountNeeds, _Mapping]] = ..., max_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AccountNeeds(_message.Message):
    __slots__ = ("model", "kind", "affinity_keys", "preferred_owner_key", "required_owner_key", "required_account_id", "avoid_account_ids", "newer_than_credential_version", "reattach")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    AFFINITY_KEYS_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_OWNER_KEY_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_OWNER_KEY_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    AVOID_ACCOUNT_IDS_FIELD_NUMBER: _ClassVar[int]
    NEWER_THAN_CREDENTIAL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REATTACH_FIELD_NUMBER: _ClassVar[int]
    model: str
    kind: AccountKind
    affinity_keys: _containers.RepeatedScalarFieldContainer[str]
    preferred_owner_key: str
    required_owner_key: str
    required_account_id: str
    avoid_account_ids: _containers.RepeatedScalarFieldContainer[str]
    newer_than_credential_version: int
    reattach: bool
    def __init__(self, model: _Optional[str] = ..., kind: _Optional[_Union[AccountKind, str]] = ..., affinity_keys: _Optional[_Iterable[str]] = ..., preferred_owner_key: _Optional[str] = ..., required_owner_key: _Optional[str] = ..., required_account_id: _Optional[str] = ..., avoid_account_ids: _Optional[_Iterable[str]] = ..., newer_than_credential_version: _Optional[int] = ..., reattach: _Optional[bool] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("request_id", "grant", "denial", "failure")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    DENIAL_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    grant: Grant
    denial: Denial
    failure: Failure
    def __init__(self, request_id: _Optional[str] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ..., denial: _Optional[_Union[Denial, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("lease_ids", "account", "key_id")
    LEASE_IDS_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    lease_ids: _containers.RepeatedScalarFieldContainer[int]
    account: AccountGrant
    key_id: str
    def __init__(self, lease_ids: _Optional[_Iterable[int]] = ..., account: _Optional[_Union[AccountGrant, _Mapping]] = ..., key_id: _Optional[str] = ...) -> None: ...

class AccountGrant(_message.Message):
    __slots__ = ("account_id", "kind", "base_url", "upstream_account_id", "access_token", "credential_version", "owner_moved", "streams_held", "private_upstream")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BASE_URL_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    ACCESS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_VERSION_FIELD_NUMBER: _ClassVar[int]
    OWNER_MOVED_FIELD_NUMBER: _ClassVar[int]
    STREAMS_HELD_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    kind: AccountKind
    base_url: str
    upstream_account_id: str
    access_token: str
    credential_version: int
    owner_moved: bool
    streams_held: int
    private_upstream: bool
    def __init__(self, account_id: _Optional[str] = ..., kind: _Optional[_Union[AccountKind, str]] = ..., base_url: _Optional[str] = ..., upstream_account_id: _Optional[str] = ..., access_token: _Optional[str] = ..., credential_version: _Optional[int] = ..., owner_moved: _Optional[bool] = ..., streams_held: _Optional[int] = ..., private_upstream: _Optional[bool] = ...) -> None: ...

class Denial(_message.Message):
    __slots__ = ("reason", "resource", "limit", "held", "waiters", "retry_after", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    WAITERS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: DenialReason
    resource: str
    limit: int
    held: int
    waiters: int
    retry_after: _duration_pb2.Duration
    message: str
    def __init__(self, reason: _Optional[_Union[DenialReason, str]] = ..., resource: _Optional[str] = ..., limit: _Optional[int] = ..., held: _Optional[int] = ..., waiters: _Optional[int] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., message: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "field", "message", "retry_after")
    CODE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    code: int
    field: str
    message: str
    retry_after: _duration_pb2.Duration
    def __init__(self, code: _Optional[int] = ..., field: _Optional[str] = ..., message: _Optional[str] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("lease_ids", "request_id")
    LEASE_IDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    lease_ids: _containers.RepeatedScalarFieldContainer[int]
    request_id: str
    def __init__(self, lease_ids: _Optional[_Iterable[int]] = ..., request_id: _Optional[str] = ...) -> None: ...

class AccountReport(_message.Message):
    __slots__ = ("account_id", "credential_version", "outcome", "status", "code", "resets_after", "usage", "windows", "credits", "owned_keys", "key_sha256")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    RESETS_AFTER_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    OWNED_KEYS_FIELD_NUMBER: _ClassVar[int]
    KEY_SHA256_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    credential_version: int
    outcome: Outcome
    status: int
    code: str
    resets_after: _duration_pb2.Duration
    usage: TokenUsage
    windows: _containers.RepeatedCompositeFieldContainer[RateLimitWindow]
    credits: Credits
    owned_keys: _containers.RepeatedScalarFieldContainer[str]
    key_sha256: bytes
    def __init__(self, account_id: _Optional[str] = ..., credential_version: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., status: _Optional[int] = ..., code: _Optional[str] = ..., resets_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., usage: _Optional[_Union[TokenUsage, _Mapping]] = ..., windows: _Optional[_Iterable[_Union[RateLimitWindow, _Mapping]]] = ..., credits: _Optional[_Union[Credits, _Mapping]] = ..., owned_keys: _Optional[_Iterable[str]] = ..., key_sha256: _Optional[bytes] = ...) -> None: ...

class TokenUsage(_message.Message):
    __slots__ = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    def __init__(self, input_tokens: _Optional[int] = ..., cached_input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., reasoning_tokens: _Optional[int] = ...) -> None: ...

class RateLimitWindow(_message.Message):
    __slots__ = ("length", "used_percent", "resets_after")
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    USED_PERCENT_FIELD_NUMBER: _ClassVar[int]
    RESETS_AFTER_FIELD_NUMBER: _ClassVar[int]
    length: _duration_pb2.Duration
    used_percent: float
    resets_after: _duration_pb2.Duration
    def __init__(self, length: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., used_percent: _Optional[float] = ..., resets_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Credits(_message.Message):
    __slots__ = ("has_credits", "unlimited", "balance")
    HAS_CREDITS_FIELD_NUMBER: _ClassVar[int]
    UNLIMITED_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    has_credits: bool
    unlimited: bool
    balance: str
    def __init__(self, has_credits: _Optional[bool] = ..., unlimited: _Optional[bool] = ..., balance: _Optional[str] = ...) -> None: ...
