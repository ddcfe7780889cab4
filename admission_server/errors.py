"""What ends a call or a stream instead of an answer, and the one table that makes gRPC statuses of it.

Every error carries `google.rpc.ErrorInfo` (reason, domain `admission.v1`, and the field that is wrong), and `RetryInfo`
where trying again helps.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn
from typing import Any as Anything

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo  # type: ignore[import-untyped]  # it ships none
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # same

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Anything, Anything]
else:
    Context = grpc.aio.ServicerContext

DOMAIN = "admission.v1"
DETAILS = "grpc-status-details-bin"


class CallError(Exception):
    """Base class: the call cannot be answered. `reason` is a stable word for programs, the message is for people."""

    reason = "INTERNAL"

    def __init__(self, message: str, *, field: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.retry_after = retry_after


class Malformed(CallError):
    """A message breaks a rule of the contract; `field` says where."""

    reason = "MALFORMED"


class Unauthenticated(CallError):
    """No role token, or one that is unknown."""

    reason = "ROLE_TOKEN_MISSING"


class Forbidden(CallError):
    """The role of the token may not do this."""

    reason = "ROLE_FORBIDDEN"


class SessionUnknown(CallError):
    """There is no such session: it has ended, or never was. Open one."""

    reason = "SESSION_UNKNOWN"


class SessionSuperseded(CallError):
    """The same instance has a newer session. This holder is a zombie, or two holders share a name."""

    reason = "SESSION_SUPERSEDED"


class SessionEndedByServer(CallError):
    """The session ended while its stream was open: it was silent for too long, or an operator ended it."""

    reason = "SESSION_ENDED"


class StreamFenced(CallError):
    """The session said hello on a newer stream."""

    reason = "STREAM_FENCED"


class SessionHasStream(CallError):
    """Unary calls and a stream do not mix in one session."""

    reason = "SESSION_HAS_STREAM"


class TooManySessions(CallError):
    """The bound on sessions is reached."""

    reason = "TOO_MANY_SESSIONS"


class TermSuperseded(CallError):
    """A controller with a newer term has taken over."""

    reason = "TERM_SUPERSEDED"


class Overloaded(CallError):
    """The server is too busy to answer queries."""

    reason = "SERVER_OVERLOADED"


class StateUnwritable(CallError):
    """The server cannot write its state folder, so it opens no session that it might forget."""

    reason = "STATE_UNWRITABLE"


class Draining(CallError):
    """The server is stopping."""

    reason = "SERVER_DRAINING"


STATUS: dict[type[CallError], grpc.StatusCode] = {
    Malformed: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    SessionUnknown: grpc.StatusCode.NOT_FOUND,
    SessionSuperseded: grpc.StatusCode.FAILED_PRECONDITION,
    SessionEndedByServer: grpc.StatusCode.ABORTED,
    StreamFenced: grpc.StatusCode.ABORTED,
    SessionHasStream: grpc.StatusCode.FAILED_PRECONDITION,
    TooManySessions: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TermSuperseded: grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded: grpc.StatusCode.UNAVAILABLE,
    StateUnwritable: grpc.StatusCode.UNAVAILABLE,
    Draining: grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class WireError:
    """An error as gRPC sends it."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


def wire_error(error: CallError) -> WireError:
    """Returns what to abort a call with."""
    code = STATUS[type(error)]
    info = ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={"field": error.field} if error.field else None)
    details = [_packed(info)]
    if error.retry_after is not None:
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after * 1000))
        details.append(_packed(retry))
    message = f"{error.field}: {error}" if error.field else str(error)
    status = Status(code=code.value[0], message=message, details=details)
    return WireError(code, message, ((DETAILS, status.SerializeToString()),))


async def abort(context: Context, error: CallError) -> NoReturn:
    """Ends a call with an error."""
    wire = wire_error(error)
    await context.abort(wire.code, wire.message, wire.trailing_metadata)


def _packed(detail: ErrorInfo | RetryInfo) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
