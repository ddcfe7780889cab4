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

class EndReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_REASON_UNSPECIFIED: _ClassVar[EndReason]
    END_REASON_RELEASED: _ClassVar[EndReason]
    END_REASON_EXPIRED: _ClassVar[EndReason]
    END_REASON_LEAKED: _ClassVar[EndReason]
    END_REASON_OVERHELD: _ClassVar[EndReason]
    END_REASON_SUPERSEDED: _ClassVar[EndReason]
    END_REASON_FORGOTTEN: _ClassVar[EndReason]
END_REASON_UNSPECIFIED: EndReason
END_REASON_RELEASED: EndReason
END_REASON_EXPIRED: EndReason
END_REASON_LEAKED: EndReason
END_REASON_OVERHELD: EndReason
END_REASON_SUPERSEDED: EndReason
END_REASON_FORGOTTEN: EndReason

class SessionRequest(_message.Message):
    __slots__ = ("hello", "releases", "heartbeat", "reports", "acquires", "close")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    ACQUIRES_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    releases: _containers.RepeatedCompositeFieldContainer[_admission_pb2.Release]
    heartbeat: Heartbeat
    reports: _containers.RepeatedCompositeFieldContainer[_admission_pb2.AccountReport]
    acquires: _containers.RepeatedCompositeFieldContainer[_admission_pb2.Acquire]
    close: bool
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., releases: _Optional[_Iterable[_Union[_admission_pb2.Release, _Mapping]]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., reports: _Optional[_Iterable[_Union[_admission_pb2.AccountReport, _Mapping]]] = ..., acquires: _Optional[_Iterable[_Union[_admission_pb2.Acquire, _Mapping]]] = ..., close: _Optional[bool] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("instance", "session_id", "epoch", "held")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    instance: str
    session_id: str
    epoch: int
    held: LeaseList
    def __init__(self, instance: _Optional[str] = ..., session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., held: _Optional[_Union[LeaseList, _Mapping]] = ...) -> None: ...

class LeaseList(_message.Message):
    __slots__ = ("seen", "leases")
    SEEN_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    seen: int
    leases: _containers.RepeatedCompositeFieldContainer[HeldLease]
    def __init__(self, seen: _Optional[int] = ..., leases: _Optional[_Iterable[_Union[HeldLease, _Mapping]]] = ...) -> None: ...

class HeldLease(_message.Message):
    __slots__ = ("lease_id", "resource", "account_id", "request_id", "key_id", "peer", "age")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    lease_id: int
    resource: str
    account_id: str
    request_id: str
    key_id: str
    peer: str
    age: _duration_pb2.Duration
    def __init__(self, lease_id: _Optional[int] = ..., resource: _Optional[str] = ..., account_id: _Optional[str] = ..., request_id: _Optional[str] = ..., key_id: _Optional[str] = ..., peer: _Optional[str] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sequence", "seen", "lease_count", "lease_digest", "held")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    LEASE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    seen: int
    lease_count: int
    lease_digest: int
    held: LeaseList
    def __init__(self, sequence: _Optional[int] = ..., seen: _Optional[int] = ..., lease_count: _Optional[int] = ..., lease_digest: _Optional[int] = ..., held: _Optional[_Union[LeaseList, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("number", "welcome", "answers", "heartbeat_ack", "ended", "send_held")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_ACK_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    SEND_HELD_FIELD_NUMBER: _ClassVar[int]
    number: int
    welcome: Welcome
    answers: _containers.RepeatedCompositeFieldContainer[_admission_pb2.Answer]
    heartbeat_ack: HeartbeatAck
    ended: _containers.RepeatedCompositeFieldContainer[EndedLease]
    send_held: bool
    def __init__(self, number: _Optional[int] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., answers: _Optional[_Iterable[_Union[_admission_pb2.Answer, _Mapping]]] = ..., heartbeat_ack: _Optional[_Union[HeartbeatAck, _Mapping]] = ..., ended: _Optional[_Iterable[_Union[EndedLease, _Mapping]]] = ..., send_held: _Optional[bool] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("epoch", "ttl", "heartbeat_in", "resumed", "dropped_lease_ids", "lease_limit", "has_policy")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_IN_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_LEASE_IDS_FIELD_NUMBER: _ClassVar[int]
    LEASE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    HAS_POLICY_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    ttl: _duration_pb2.Duration
    heartbeat_in: _duration_pb2.Duration
    resumed: bool
    dropped_lease_ids: _containers.RepeatedScalarFieldContainer[int]
    lease_limit: int
    has_policy: bool
    def __init__(self, epoch: _Optional[int] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., heartbeat_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., resumed: _Optional[bool] = ..., dropped_lease_ids: _Optional[_Iterable[int]] = ..., lease_limit: _Optional[int] = ..., has_policy: _Optional[bool] = ...) -> None: ...

class HeartbeatAck(_message.Message):
    __slots__ = ("sequence", "heartbeat_in", "dropped_lease_ids", "has_policy")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_IN_FIELD_NUMBER: _ClassVar[int]
    DROPPED_LEASE_IDS_FIELD_NUMBER: _ClassVar[int]
    HAS_POLICY_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    heartbeat_in: _duration_pb2.Duration
    dropped_lease_ids: _containers.RepeatedScalarFieldContainer[int]
    has_policy: bool
    def __init__(self, sequence: _Optional[int] = ..., heartbeat_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., dropped_lease_ids: _Optional[_Iterable[int]] = ..., has_policy: _Optional[bool] = ...) -> None: ...

class EndedLease(_message.Message):
    __slots__ = ("lease_id", "reason")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lease_id: int
    reason: EndReason
    def __init__(self, lease_id: _Optional[int] = ..., reason: _Optional[_Union[EndReason, str]] = ...) -> None: ...

class OpenSessionRequest(_message.Message):
    __slots__ = ("instance", "session_id")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    instance: str
    session_id: str
    def __init__(self, instance: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("session_id", "welcome")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    welcome: Welcome
    def __init__(self, session_id: _Optional[str] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("session_id", "lease_ids")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_IDS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    lease_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, session_id: _Optional[str] = ..., lease_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("ttl", "heartbeat_in", "ended")
    TTL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_IN_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ttl: _duration_pb2.Duration
    heartbeat_in: _duration_pb2.Duration
    ended: _containers.RepeatedCompositeFieldContainer[EndedLease]
    def __init__(self, ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., heartbeat_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ended: _Optional[_Iterable[_Union[EndedLease, _Mapping]]] = ...) -> None: ...

class AcquireRequest(_message.Message):
    __slots__ = ("session_id", "acquire")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ACQUIRE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    acquire: _admission_pb2.Acquire
    def __init__(self, session_id: _Optional[str] = ..., acquire: _Optional[_Union[_admission_pb2.Acquire, _Mapping]] = ...) -> None: ...

class AcquireResponse(_message.Message):
    __slots__ = ("answer",)
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    answer: _admission_pb2.Answer
    def __init__(self, answer: _Optional[_Union[_admission_pb2.Answer, _Mapping]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("session_id", "releases", "reports")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    releases: _containers.RepeatedCompositeFieldContainer[_admission_pb2.Release]
    reports: _containers.RepeatedCompositeFieldContainer[_admission_pb2.AccountReport]
    def __init__(self, session_id: _Optional[str] = ..., releases: _Optional[_Iterable[_Union[_admission_pb2.Release, _Mapping]]] = ..., reports: _Optional[_Iterable[_Union[_admission_pb2.AccountReport, _Mapping]]] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("ended",)
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ended: int
    def __init__(self, ended: _Optional[int] = ...) -> None: ...

class CloseSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class CloseSessionResponse(_message.Message):
    __slots__ = ("ended",)
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ended: int
    def __init__(self, ended: _Optional[int] = ...) -> None: ...
