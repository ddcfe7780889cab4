import datetime

from admission.v1 import admission_pb2 as _admission_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SelectionStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SELECTION_STRATEGY_UNSPECIFIED: _ClassVar[SelectionStrategy]
    SELECTION_STRATEGY_CAPACITY_WEIGHTED: _ClassVar[SelectionStrategy]
    SELECTION_STRATEGY_ROUND_ROBIN: _ClassVar[SelectionStrategy]

class AccountStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCOUNT_STATUS_UNSPECIFIED: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_ACTIVE: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_RATE_LIMITED: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_QUOTA_EXCEEDED: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_PAUSED: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_REAUTH_REQUIRED: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_DEACTIVATED: _ClassVar[AccountStatus]
SELECTION_STRATEGY_UNSPECIFIED: SelectionStrategy
SELECTION_STRATEGY_CAPACITY_WEIGHTED: SelectionStrategy
SELECTION_STRATEGY_ROUND_ROBIN: SelectionStrategy
ACCOUNT_STATUS_UNSPECIFIED: AccountStatus
ACCOUNT_STATUS_ACTIVE: AccountStatus
ACCOUNT_STATUS_RATE_LIMITED: AccountStatus
ACCOUNT_STATUS_QUOTA_EXCEEDED: AccountStatus
ACCOUNT_STATUS_PAUSED: AccountStatus
ACCOUNT_STATUS_REAUTH_REQUIRED: AccountStatus
ACCOUNT_STATUS_DEACTIVATED: AccountStatus

class SyncRequest(_message.Message):
    __slots__ = ("hello", "snapshot", "delta", "signal_ack")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_ACK_FIELD_NUMBER: _ClassVar[int]
    hello: ControllerHello
    snapshot: PolicySnapshot
    delta: PolicyDelta
    signal_ack: SignalAck
    def __init__(self, hello: _Optional[_Union[ControllerHello, _Mapping]] = ..., snapshot: _Optional[_Union[PolicySnapshot, _Mapping]] = ..., delta: _Optional[_Union[PolicyDelta, _Mapping]] = ..., signal_ack: _Optional[_Union[SignalAck, _Mapping]] = ...) -> None: ...

class ControllerHello(_message.Message):
    __slots__ = ("instance", "term")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    instance: str
    term: int
    def __init__(self, instance: _Optional[str] = ..., term: _Optional[int] = ...) -> None: ...

class PolicySnapshot(_message.Message):
    __slots__ = ("version", "settings", "accounts", "keys")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    version: int
    settings: PolicySettings
    accounts: _containers.RepeatedCompositeFieldContainer[AccountPolicy]
    keys: _containers.RepeatedCompositeFieldContainer[KeyPolicy]
    def __init__(self, version: _Optional[int] = ..., settings: _Optional[_Union[PolicySettings, _Mapping]] = ..., accounts: _Optional[_Iterable[_Union[AccountPolicy, _Mapping]]] = ..., keys: _Optional[_Iterable[_Union[KeyPolicy, _Mapping]]] = ...) -> None: ...

class PolicyDelta(_message.Message):
    __slots__ = ("version", "base_version", "settings", "accounts", "removed_account_ids", "keys", "removed_key_ids")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_ACCOUNT_IDS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_KEY_IDS_FIELD_NUMBER: _ClassVar[int]
    version: int
    base_version: int
    settings: PolicySettings
    accounts: _containers.RepeatedCompositeFieldContainer[AccountPolicy]
    removed_account_ids: _containers.RepeatedScalarFieldContainer[str]
    keys: _containers.RepeatedCompositeFieldContainer[KeyPolicy]
    removed_key_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., base_version: _Optional[int] = ..., settings: _Optional[_Union[PolicySettings, _Mapping]] = ..., accounts: _Optional[_Iterable[_Union[AccountPolicy, _Mapping]]] = ..., removed_account_ids: _Optional[_Iterable[str]] = ..., keys: _Optional[_Iterable[_Union[KeyPolicy, _Mapping]]] = ..., removed_key_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class PolicySettings(_message.Message):
    __slots__ = ("resources", "fair_share_threshold_percent", "strategy")
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    FAIR_SHARE_THRESHOLD_PERCENT_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.RepeatedCompositeFieldContainer[ResourceSettings]
    fair_share_threshold_percent: int
    strategy: SelectionStrategy
    def __init__(self, resources: _Optional[_Iterable[_Union[ResourceSettings, _Mapping]]] = ..., fair_share_threshold_percent: _Optional[int] = ..., strategy: _Optional[_Union[SelectionStrategy, str]] = ...) -> None: ...

class ResourceSettings(_message.Message):
    __slots__ = ("name", "limit", "max_wait", "queue_limit", "max_hold", "paused", "reserve")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_HOLD_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    name: str
    limit: int
    max_wait: _duration_pb2.Duration
    queue_limit: int
    max_hold: _duration_pb2.Duration
    paused: bool
    reserve: int
    def __init__(self, name: _Optional[str] = ..., limit: _Optional[int] = ..., max_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queue_limit: _Optional[int] = ..., max_hold: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., paused: _Optional[bool] = ..., reserve: _Optional[int] = ...) -> None: ...

class AccountPolicy(_message.Message):
    __slots__ = ("account_id", "kind", "base_url", "upstream_account_id", "status", "blocked_for", "access_token", "credential_version", "credential_expires_in", "plan", "models", "weight", "caps", "private_upstream", "refreshed_ago")
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BASE_URL_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FOR_FIELD_NUMBER: _ClassVar[int]
    ACCESS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    CAPS_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    REFRESHED_AGO_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    kind: _admission_pb2.AccountKind
    base_url: str
    upstream_account_id: str
    status: AccountStatus
    blocked_for: _duration_pb2.Duration
    access_token: str
    credential_version: int
    credential_expires_in: _duration_pb2.Duration
    plan: str
    models: _containers.RepeatedScalarFieldContainer[str]
    weight: float
    caps: _containers.RepeatedCompositeFieldContainer[ResourceSettings]
    private_upstream: bool
    refreshed_ago: _duration_pb2.Duration
    def __init__(self, account_id: _Optional[str] = ..., kind: _Optional[_Union[_admission_pb2.AccountKind, str]] = ..., base_url: _Optional[str] = ..., upstream_account_id: _Optional[str] = ..., status: _Optional[_Union[AccountStatus, str]] = ..., blocked_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., access_token: _Optional[str] = ..., credential_version: _Optional[int] = ..., credential_expires_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., plan: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., weight: _Optional[float] = ..., caps: _Optional[_Iterable[_Union[ResourceSettings, _Mapping]]] = ..., private_upstream: _Optional[bool] = ..., refreshed_ago: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class KeyPolicy(_message.Message):
    __slots__ = ("key_id", "key_sha256", "expires_in", "models", "account_ids", "max_streams")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_SHA256_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_IDS_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAMS_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    key_sha256: bytes
    expires_in: _duration_pb2.Duration
    models: _containers.RepeatedScalarFieldContainer[str]
    account_ids: _containers.RepeatedScalarFieldContainer[str]
    max_streams: int
    def __init__(self, key_id: _Optional[str] = ..., key_sha256: _Optional[bytes] = ..., expires_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., models: _Optional[_Iterable[str]] = ..., account_ids: _Optional[_Iterable[str]] = ..., max_streams: _Optional[int] = ...) -> None: ...

class SignalAck(_message.Message):
    __slots__ = ("sequences", "key_sequences")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    KEY_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedScalarFieldContainer[int]
    key_sequences: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, sequences: _Optional[_Iterable[int]] = ..., key_sequences: _Optional[_Iterable[int]] = ...) -> None: ...

class SyncResponse(_message.Message):
    __slots__ = ("welcome", "applied", "rejected", "signals", "key_signals")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    KEY_SIGNALS_FIELD_NUMBER: _ClassVar[int]
    welcome: SyncWelcome
    applied: PolicyApplied
    rejected: PolicyRejected
    signals: _containers.RepeatedCompositeFieldContainer[AccountSignal]
    key_signals: _containers.RepeatedCompositeFieldContainer[KeySignal]
    def __init__(self, welcome: _Optional[_Union[SyncWelcome, _Mapping]] = ..., applied: _Optional[_Union[PolicyApplied, _Mapping]] = ..., rejected: _Optional[_Union[PolicyRejected, _Mapping]] = ..., signals: _Optional[_Iterable[_Union[AccountSignal, _Mapping]]] = ..., key_signals: _Optional[_Iterable[_Union[KeySignal, _Mapping]]] = ...) -> None: ...

class SyncWelcome(_message.Message):
    __slots__ = ("epoch", "server_version", "policy_version")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    server_version: str
    policy_version: int
    def __init__(self, epoch: _Optional[int] = ..., server_version: _Optional[str] = ..., policy_version: _Optional[int] = ...) -> None: ...

class PolicyApplied(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class PolicyRejected(_message.Message):
    __slots__ = ("version", "field", "message")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    version: int
    field: str
    message: str
    def __init__(self, version: _Optional[int] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class AccountSignal(_message.Message):
    __slots__ = ("sequence", "account_id", "status_event", "windows", "credits", "windows_age", "counters")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_EVENT_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_AGE_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    account_id: str
    status_event: StatusEvent
    windows: _containers.RepeatedCompositeFieldContainer[_admission_pb2.RateLimitWindow]
    credits: _admission_pb2.Credits
    windows_age: _duration_pb2.Duration
    counters: SignalCounters
    def __init__(self, sequence: _Optional[int] = ..., account_id: _Optional[str] = ..., status_event: _Optional[_Union[StatusEvent, _Mapping]] = ..., windows: _Optional[_Iterable[_Union[_admission_pb2.RateLimitWindow, _Mapping]]] = ..., credits: _Optional[_Union[_admission_pb2.Credits, _Mapping]] = ..., windows_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., counters: _Optional[_Union[SignalCounters, _Mapping]] = ...) -> None: ...

class StatusEvent(_message.Message):
    __slots__ = ("outcome", "credential_version", "status", "code", "resets_after", "age", "refresh_wanted")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    RESETS_AFTER_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    REFRESH_WANTED_FIELD_NUMBER: _ClassVar[int]
    outcome: _admission_pb2.Outcome
    credential_version: int
    status: int
    code: str
    resets_after: _duration_pb2.Duration
    age: _duration_pb2.Duration
    refresh_wanted: bool
    def __init__(self, outcome: _Optional[_Union[_admission_pb2.Outcome, str]] = ..., credential_version: _Optional[int] = ..., status: _Optional[int] = ..., code: _Optional[str] = ..., resets_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., refresh_wanted: _Optional[bool] = ...) -> None: ...

class KeySignal(_message.Message):
    __slots__ = ("sequence", "key_id", "counters")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    key_id: str
    counters: SignalCounters
    def __init__(self, sequence: _Optional[int] = ..., key_id: _Optional[str] = ..., counters: _Optional[_Union[SignalCounters, _Mapping]] = ...) -> None: ...

class SignalCounters(_message.Message):
    __slots__ = ("succeeded", "failed", "usage")
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    succeeded: int
    failed: int
    usage: _admission_pb2.TokenUsage
    def __init__(self, succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., usage: _Optional[_Union[_admission_pb2.TokenUsage, _Mapping]] = ...) -> None: ...

class ForgetSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class ForgetSessionResponse(_message.Message):
    __slots__ = ("ended",)
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ended: int
    def __init__(self, ended: _Optional[int] = ...) -> None: ...
