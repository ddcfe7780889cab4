"""How this package calls gRPC: channels, role tokens, and what a status says about why."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # it comes without types

# Pings find a dead peer behind a quiet stream. The server allows them this often; see its options.
_CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Every attempt dials anew: no shared connection that is half dead, no back-off of gRPC's own besides ours.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def open_channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Returns a channel; plaintext without credentials."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(target, credentials, options=_CHANNEL_OPTIONS)


def role_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Returns the metadata that carries a role token."""
    return (("authorization", f"Bearer {token}"),) if token else ()


def reconnect_delay(source: random.Random, attempt: int) -> float:
    """Returns how long to wait before the next attempt: 0.1 s at first, up to 1 s later, never in step with others."""
    return source.uniform(0.1, min(1.0, 0.1 * 2 ** min(attempt, 10)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcStatus:
    """Why a call ended."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    """`ErrorInfo.reason`, stable and meant for programs; empty when the server sent none."""
    retry_after: float | None = None

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"


class EndedCall(Protocol):
    """A call that can say why it has ended."""

    async def code(self) -> grpc.StatusCode:
        """Returns its status."""

    async def details(self) -> str | None:
        """Returns the message of its status."""

    async def trailing_metadata(self) -> Iterable[Any] | None:
        """Returns the metadata that came with it."""


async def ended_with(call: EndedCall) -> RpcStatus:
    """Returns why a call has ended. Call it only once the call is done or has been cancelled."""
    return _status(await call.code(), await call.details(), await call.trailing_metadata())


def failed_with(error: grpc.aio.AioRpcError) -> RpcStatus:
    """Returns why a unary call has failed."""
    return _status(error.code(), error.details(), error.trailing_metadata())


def _status(code: grpc.StatusCode, message: str | None, metadata: Iterable[Any] | None) -> RpcStatus:
    details = next((value for key, value in metadata or () if key == "grpc-status-details-bin"), b"")
    reason, retry_after = "", None
    for detail in status_pb2.Status.FromString(details).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason = info.reason
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return RpcStatus(code=code, message=message or "", reason=reason, retry_after=retry_after)
