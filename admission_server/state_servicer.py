"""`StateService`: what the ledger thinks right now, for people and monitoring. Read only; no token, no key hash.

Lists are paged as AIP-158 says: by name or id, the page token being the last one of the page before.
"""

import asyncio
import base64
import binascii
import heapq
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from admission.v1 import state_service_pb2 as state_pb
from admission.v1 import state_service_pb2_grpc as state_grpc

from admission_server.accounts import NEVER, Account, Standing
from admission_server.delivery import Delivery
from admission_server.errors import CallError, Context, Malformed, Overloaded, abort
from admission_server.lease_pages import BadToken, LeaseQuery
from admission_server.ledger import Ledger
from admission_server.policy import ACCOUNT_FAMILIES
from admission_server.resources import Kind, Lease, Resource
from admission_server.sessions import Session
from admission_server.wire import KIND_NUMBERS, STATUS_NUMBERS, duration

DEFAULT_PAGE, LARGEST_PAGE = 100, 1_000
MOST_RESOURCES = 1_000
WATCH_EVERY = 0.5
MOST_WATCHERS = 100


class StateServicer(state_grpc.StateServiceServicer):
    """Shows the state of the ledger."""

    def __init__(self, *, ledger: Ledger, delivery: Delivery, version: str, is_overloaded: Callable[[], bool]) -> None:
        self._ledger = ledger
        self._delivery = delivery
        self._version = version
        self._is_overloaded = is_overloaded
        self._watchers = 0
        self._glance = state_pb.GetStateResponse()
        self._glance_number = 0
        self._glance_until = 0.0

    async def GetState(  # noqa: N802  # named by the contract
        self, _request: state_pb.GetStateRequest, context: Context
    ) -> state_pb.GetStateResponse:
        """Shows the server and its resources at a glance."""
        await self._check_load(context)
        return self._state()

    async def ListResources(  # noqa: N802
        self, request: state_pb.ListResourcesRequest, context: Context
    ) -> state_pb.ListResourcesResponse:
        """Lists resources by name."""
        await self._check_load(context)
        resources = self._ledger.catalogue.resources
        names = (name for name in resources if name.startswith(request.name_prefix))
        page, token = await _page(context, request.page_size, request.page_token, names)
        return state_pb.ListResourcesResponse(
            resources=[_resource_state(resources[name]) for name in page], next_page_token=token
        )

    async def ListSessions(  # noqa: N802
        self, request: state_pb.ListSessionsRequest, context: Context
    ) -> state_pb.ListSessionsResponse:
        """Lists sessions by id."""
        await self._check_load(context)
        sessions = self._ledger.sessions
        page, token = await _page(context, request.page_size, request.page_token, sessions)
        now = self._ledger.now()
        return state_pb.ListSessionsResponse(
            sessions=[
                _session_state(sessions[i], now, connected=self._delivery.is_connected(sessions[i])) for i in page
            ],
            next_page_token=token,
        )

    async def ListLeases(  # noqa: N802
        self, request: state_pb.ListLeasesRequest, context: Context
    ) -> state_pb.ListLeasesResponse:
        """Lists leases, filtered; `lease_pages` says in which order."""
        await self._check_load(context)
        query = LeaseQuery(resource=request.resource, session_id=request.session_id, account_id=request.account_id)
        try:
            size = _page_size(request.page_size)
            after = query.read_token(request.page_token)
        except BadToken as error:
            await abort(context, Malformed(str(error), field="page_token"))
        except CallError as error:
            await abort(context, error)
        found: list[Lease] = []
        for lease in query.scan(self._ledger, after):
            if lease is None:
                await asyncio.sleep(0)
                continue
            found.append(lease)
            if len(found) > size:
                break
        now = self._ledger.now()
        return state_pb.ListLeasesResponse(
            leases=[_lease_state(lease, now) for lease in found[:size] if not lease.ended],
            next_page_token=query.token_after(found[size - 1]) if len(found) > size else "",
        )

    async def ListAccounts(  # noqa: N802
        self, request: state_pb.ListAccountsRequest, context: Context
    ) -> state_pb.ListAccountsResponse:
        """Lists accounts by id, as selection sees them."""
        await self._check_load(context)
        accounts = self._ledger.catalogue.selector.accounts
        page, token = await _page(context, request.page_size, request.page_token, accounts)
        now = self._ledger.now()
        return state_pb.ListAccountsResponse(
            accounts=[_account_state(accounts[i], now) for i in page], next_page_token=token
        )

    async def WatchState(  # noqa: N802
        self, _request: state_pb.WatchStateRequest, context: Context
    ) -> AsyncIterator[state_pb.WatchStateResponse]:
        """Sends the state whenever it has changed, at most twice a second."""
        await self._check_load(context)
        if self._watchers >= MOST_WATCHERS:
            await abort(context, Overloaded(f"there are {self._watchers} watchers already", retry_after=5.0))
        self._watchers += 1
        try:
            async for response in self._changes():
                yield response
        finally:
            self._watchers -= 1

    async def _changes(self) -> AsyncIterator[state_pb.WatchStateResponse]:
        last = 0
        while not self._ledger.draining:
            if not self._is_overloaded():
                self._refresh_glance()
                if self._glance_number != last:
                    last = self._glance_number
                    yield state_pb.WatchStateResponse(state=self._glance)
            await asyncio.sleep(WATCH_EVERY)

    def _refresh_glance(self) -> None:
        """Builds the state that all watchers share, unless that was done a moment ago; a new number when it differs."""
        now = asyncio.get_running_loop().time()
        if now < self._glance_until:
            return
        self._glance_until = now + WATCH_EVERY
        state = self._state()
        if not self._glance_number or _without_clock(state) != _without_clock(self._glance):
            self._glance = state
            self._glance_number += 1

    def _state(self) -> state_pb.GetStateResponse:
        ledger = self._ledger
        now = ledger.now()
        resources = sorted(ledger.catalogue.resources.values(), key=_by_kind_and_name)
        return state_pb.GetStateResponse(
            server_version=self._version,
            epoch=ledger.epoch,
            policy_version=ledger.catalogue.version,
            sessions=len(ledger.sessions),
            recovering=[
                state_pb.RecoveringSession(
                    session_id=session_id,
                    instance=instance,
                    time_left=duration(max(0.0, ledger.recovered_by - now)),
                )
                for session_id, instance in sorted(ledger.recovering.items())
            ],
            resources=[_resource_state(resource) for resource in resources[:MOST_RESOURCES]],
            uptime=duration(now - ledger.started_at),
        )

    async def _check_load(self, context: Context) -> None:
        if self._is_overloaded():
            await abort(context, Overloaded("too busy for queries", retry_after=2.0))


async def _page(context: Context, size: int, token: str, keys: Iterable[str]) -> tuple[Sequence[str], str]:
    """Returns the keys of one page, and the token of the next."""
    try:
        size = _page_size(size)
        after = _read_token(token) if token else None
    except CallError as error:
        await abort(context, error)
    found = heapq.nsmallest(size + 1, (key for key in keys if after is None or key > after))
    if len(found) <= size:
        return found, ""
    return found[:size], base64.urlsafe_b64encode(found[size - 1].encode()).decode()


def _page_size(size: int) -> int:
    if size < 0:
        raise Malformed("must not be negative", field="page_size")
    return min(size or DEFAULT_PAGE, LARGEST_PAGE)


def _read_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (ValueError, binascii.Error):
        raise Malformed("is none of ours", field="page_token") from None


def _by_kind_and_name(resource: Resource) -> tuple[int, str]:
    return (_KIND_ORDER[resource.family.kind], resource.name)


_KIND_ORDER = {Kind.LANE: 0, Kind.STAGE: 1, Kind.ACCOUNT: 2, Kind.KEY: 3}


def _without_clock(state: state_pb.GetStateResponse) -> bytes:
    copy = state_pb.GetStateResponse()
    copy.CopyFrom(state)
    copy.ClearField("uptime")
    for session in copy.recovering:
        session.ClearField("time_left")
    return copy.SerializeToString(deterministic=True)


def _resource_state(resource: Resource) -> state_pb.ResourceState:
    settings = resource.settings
    waiting = resource.waiting
    if resource.account is not None:
        # Those who wait for any account wait for each of them.
        waiting += sum(len(pool.room) for pool in resource.account.pools if pool.families[0] is resource.family)
    state = state_pb.ResourceState(
        name=resource.name,
        limit=settings.limit,
        held=len(resource.leases),
        waiting=waiting,
        overdraft=resource.overdraft,
        paused=settings.paused,
        max_wait=duration(settings.max_wait),
        reserve=settings.reserve,
    )
    if settings.max_hold:
        state.max_hold.CopyFrom(duration(settings.max_hold))
    return state


def _session_state(session: Session, now: float, *, connected: bool) -> state_pb.SessionState:
    return state_pb.SessionState(
        session_id=session.session_id,
        instance=session.instance,
        role=session.role,
        leases=len(session.leases),
        waiting=len(session.waiting),
        age=duration(now - session.opened_at),
        expires_in=duration(max(0.0, session.expires_at - now)),
        connected=connected,
    )


def _lease_state(lease: Lease, now: float) -> state_pb.LeaseState:
    grant = lease.grant
    return state_pb.LeaseState(
        lease_id=lease.lease_id,
        resource=lease.resource.name,
        session_id=lease.session.session_id,
        account_id=grant.account_id,
        request_id=grant.request_id,
        age=duration(now - grant.granted_at),
        overdraft=lease.overdraft,
    )


def _account_state(account: Account, now: float) -> state_pb.AccountState:
    standing, until = account.standing(now)
    streams, creates = (len(account.resources[family].leases) for family in ACCOUNT_FAMILIES)
    credential = account.credential
    usable = credential is not None and credential.version > account.rejected_version and now < credential.expires_at
    state = state_pb.AccountState(
        account_id=account.account_id,
        kind=KIND_NUMBERS[account.policy.kind],
        status=STATUS_NUMBERS[account.status],
        has_credential=usable,
        credential_version=credential.version if credential is not None else 0,
        weight=account.weight,
        streams=streams,
        response_creates=creates,
    )
    if standing is not Standing.SERVING and until < NEVER:
        state.blocked_for.CopyFrom(duration(until - now))
    return state
