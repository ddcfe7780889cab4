"""Reading the admission server's state as plain values: for the control API's read view, the demo and tests.

Each method is one call with a deadline. A server that cannot be asked in time raises `AdmissionUnavailable`.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
import grpc.aio
from admission.v1 import state_service_pb2 as pb
from admission.v1.state_service_pb2_grpc import StateServiceStub

from admission_client import wire
from admission_client.errors import AdmissionUnavailable
from admission_client.lease import AccountKind
from admission_client.policy import AccountStatus
from admission_client.policy_wire import account_status
from admission_client.rpc import failed_with, open_channel, role_metadata

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceState:
    """One resource: its settings and what is taken of it."""

    name: str
    limit: int
    held: int
    waiting: int
    overdraft: int
    paused: bool
    max_wait: float
    max_hold: float | None
    reserve: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveringSession:
    """A session that was open before a restart of the server and has not come back."""

    session_id: str
    instance: str
    time_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """The admission server at one moment."""

    server_version: str
    epoch: int
    policy_version: int
    sessions: int
    recovering: tuple[RecoveringSession, ...]
    resources: tuple[ResourceState, ...]
    uptime: float

    def resource(self, name: str) -> ResourceState | None:
        """Returns one resource by its full name."""
        return next((resource for resource in self.resources if resource.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """One holder of leases."""

    session_id: str
    instance: str
    role: str
    leases: int
    waiting: int
    age: float
    expires_in: float
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    """One seat that is taken."""

    lease_id: int
    resource: str
    session_id: str
    account_id: str
    request_id: str
    age: float
    overdraft: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """One account as selection sees it."""

    account_id: str
    kind: AccountKind
    status: AccountStatus
    blocked_for: float | None
    has_credential: bool
    credential_version: int
    weight: float
    streams: int
    response_creates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Part of a list. `next_page_token` is empty on the last one."""

    items: tuple[T, ...]
    next_page_token: str


class StateReader:
    """Asks `StateService`. Use it as a block; a token is needed only where the server was told to ask for one."""

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        call_timeout: float = 5.0,
    ) -> None:
        self._target = target
        self._metadata = role_metadata(token)
        self._credentials = credentials
        self._call_timeout = call_timeout
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        self._channel = open_channel(self._target, self._credentials)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.close(None)

    async def state(self) -> ServerState:
        """Returns the server and its resources at a glance."""
        response = await self._call("GetState", pb.GetStateRequest())
        return _server_state(response)

    async def watch(self) -> AsyncIterator[ServerState]:
        """Yields the state now and whenever it has changed, at most twice a second, until the server ends."""
        try:
            async for response in self._stub().WatchState(pb.WatchStateRequest(), metadata=self._metadata):
                yield _server_state(response.state)
        except grpc.aio.AioRpcError as error:
            raise AdmissionUnavailable(str(failed_with(error))) from None

    async def resources(
        self, *, name_prefix: str = "", page_size: int = 0, page_token: str = ""
    ) -> Page[ResourceState]:
        """Returns one page of the resources, by name."""
        request = pb.ListResourcesRequest(name_prefix=name_prefix, page_size=page_size, page_token=page_token)
        response = await self._call("ListResources", request)
        return _page(map(_resource, response.resources), response)

    async def sessions(self, *, page_size: int = 0, page_token: str = "") -> Page[SessionState]:
        """Returns one page of the sessions, by id."""
        response = await self._call("ListSessions", pb.ListSessionsRequest(page_size=page_size, page_token=page_token))
        return _page(map(_session, response.sessions), response)

    async def leases(
        self,
        *,
        resource: str = "",
        session_id: str = "",
        account_id: str = "",
        page_size: int = 0,
        page_token: str = "",
    ) -> Page[LeaseState]:
        """Returns one page of the leases, by id; of those that match every filter that is given."""
        request = pb.ListLeasesRequest(
            resource=resource,
            session_id=session_id,
            account_id=account_id,
            page_size=page_size,
            page_token=page_token,
        )
        response = await self._call("ListLeases", request)
        return _page(map(_lease, response.leases), response)

    async def accounts(self, *, page_size: int = 0, page_token: str = "") -> Page[AccountState]:
        """Returns one page of the accounts, by id."""
        response = await self._call("ListAccounts", pb.ListAccountsRequest(page_size=page_size, page_token=page_token))
        return _page(map(_account, response.accounts), response)

    async def _call(self, method: str, request: Any) -> Any:
        try:
            return await getattr(self._stub(), method)(request, metadata=self._metadata, timeout=self._call_timeout)
        except grpc.aio.AioRpcError as error:
            status = failed_with(error)
            if status.code is grpc.StatusCode.INVALID_ARGUMENT:
                raise ValueError(status.message) from None
            raise AdmissionUnavailable(str(status)) from None

    def _stub(self) -> StateServiceStub:
        if self._channel is None:
            raise RuntimeError("use the reader as a block")
        return StateServiceStub(self._channel)


def _page(items: Iterable[T], response: Any) -> Page[T]:
    return Page(items=tuple(items), next_page_token=response.next_page_token)


def _server_state(message: pb.GetStateResponse) -> ServerState:
    return ServerState(
        server_version=message.server_version,
        epoch=message.epoch,
        policy_version=message.policy_version,
        sessions=message.sessions,
        recovering=tuple(
            RecoveringSession(
                session_id=session.session_id,
                instance=session.instance,
                time_left=wire.seconds(session.time_left),
            )
            for session in message.recovering
        ),
        resources=tuple(map(_resource, message.resources)),
        uptime=wire.seconds(message.uptime),
    )


def _resource(message: pb.ResourceState) -> ResourceState:
    return ResourceState(
        name=message.name,
        limit=message.limit,
        held=message.held,
        waiting=message.waiting,
        overdraft=message.overdraft,
        paused=message.paused,
        max_wait=wire.seconds(message.max_wait),
        max_hold=wire.seconds(message.max_hold) if message.HasField("max_hold") else None,
        reserve=message.reserve,
    )


def _session(message: pb.SessionState) -> SessionState:
    return SessionState(
        session_id=message.session_id,
        instance=message.instance,
        role=message.role,
        leases=message.leases,
        waiting=message.waiting,
        age=wire.seconds(message.age),
        expires_in=wire.seconds(message.expires_in),
        connected=message.connected,
    )


def _lease(message: pb.LeaseState) -> LeaseState:
    return LeaseState(
        lease_id=message.lease_id,
        resource=message.resource,
        session_id=message.session_id,
        account_id=message.account_id,
        request_id=message.request_id,
        age=wire.seconds(message.age),
        overdraft=message.overdraft,
    )


def _account(message: pb.AccountState) -> AccountState:
    return AccountState(
        account_id=message.account_id,
        kind=wire.account_kind(message.kind),
        status=account_status(message.status),
        blocked_for=wire.seconds(message.blocked_for) if message.HasField("blocked_for") else None,
        has_credential=message.has_credential,
        credential_version=message.credential_version,
        weight=message.weight,
        streams=message.streams,
        response_creates=message.response_creates,
    )
