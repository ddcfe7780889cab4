"""REST routes of usage: for operators below `/api/`, and for clients of the proxy, whom the edge sends here."""

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Request

from control_api.accounts.routes import AccountId
from control_api.auth import bearer_of
from control_api.errors import NotSignedIn, problem_responses
from control_api.paging import Cursor, PageLimit, decode_cursor, encode_cursor, number_cursor
from control_api.usage.models import PolledView, SamplePage, SampleView, UsagePage, UsageView
from control_api.usage.queries import UsageQueries
from control_api.usage.served import CodexUsage, PoolUsage, V1Usage, codex_usage, pool_window
from control_api.usage.service import UsageService, UsageTotals
from control_api.usage.windows import FIVE_HOURS, WEEK

KEY_HEADER = "x-sluicegate-key"
KEY_HASH_HEADER = "x-sluicegate-key-sha256"
CLIENT_PATHS = ("/api/codex/usage", "/backend-api/wham/usage", "/v1/usage")
"""What clients of the proxy ask for; the edge has taken their seat on the dashboard lane already."""


class ClientKey(Protocol):
    """What matters of a client's API key here."""

    id: str
    account_ids: list[str]


class KeyCounts(Protocol):
    """What a key has used."""

    succeeded: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


FindKey = Callable[[bytes], Awaitable[ClientKey | None]]
"""Finds a valid key by its SHA-256."""
CountsOf = Callable[[str], Awaitable[KeyCounts]]
"""Returns what a key has used, by its id."""


def usage_routes(usage: UsageService, queries: UsageQueries) -> APIRouter:
    """Returns the operator's routes below `/api/usage`."""
    router = APIRouter(prefix="/api/usage", tags=["usage"])

    @router.get("", summary="Usage of all accounts")
    async def list_usage(limit: PageLimit = 100, cursor: Cursor = None) -> UsagePage:
        items, last = await usage.page(after_id=decode_cursor(cursor), limit=limit)
        return UsagePage(items=list(items), next_cursor=encode_cursor(last) if last else None)

    @router.get("/{account_id}", summary="Usage of one account", responses=problem_responses(404))
    async def read_usage(account_id: AccountId) -> UsageView:
        return await usage.view(account_id)

    @router.get("/{account_id}/history", summary="History of one account's usage", responses=problem_responses(404))
    async def usage_history(account_id: AccountId, limit: PageLimit = 100, cursor: Cursor = None) -> SamplePage:
        found, last = await usage.samples(account_id, before=number_cursor(cursor), limit=limit)
        items = [SampleView.model_validate(sample) for sample in found]
        return SamplePage(items=items, next_cursor=encode_cursor(str(last)) if last else None)

    @router.post(
        "/{account_id}/refresh",
        summary="Ask the upstream for an account's usage now",
        responses=problem_responses(404, 409),
    )
    async def poll_usage(account_id: AccountId) -> PolledView:
        return PolledView(account_id=account_id, outcome=await queries.poll(account_id, manual=True))

    return router


def client_usage_routes(
    usage: UsageService,
    *,
    find_key: FindKey,
    counts_of: CountsOf,
    digest: Callable[[str], bytes],
    now: Callable[[], float],
) -> APIRouter:
    """Returns the routes for clients of the proxy. They know their clients by API key; without one, only this host."""
    router = APIRouter(tags=["clients"], responses=problem_responses(401, 503))

    async def client_key(request: Request) -> ClientKey | None:
        offered = _key_hash(request, digest)
        if offered is None:
            if not _is_loopback(request):
                raise NotSignedIn("Send your API key as 'Authorization: Bearer …'.")
            return None
        key = await find_key(offered)
        if key is None:
            raise NotSignedIn("This API key is not valid.")
        return key

    Key = Annotated[ClientKey | None, Depends(client_key)]  # noqa: N806 (a type, made here because `client_key` is)

    @router.get("/api/codex/usage", summary="The pool's usage, as Codex reads it")
    @router.get("/backend-api/wham/usage", summary="The pool's usage, as Codex reads it")
    async def for_codex(key: Key) -> CodexUsage:
        pool, _ = await usage.pool(_accounts_of(key))
        return codex_usage(pool, now=now())

    @router.get("/v1/usage", summary="What the client's key has used, for OpenAI-style clients")
    async def for_openai_clients(key: Key) -> V1Usage:
        pool, totals = await usage.pool(_accounts_of(key))
        if key is not None:
            totals = _totals_of(await counts_of(key.id))
        primary = pool_window(pool, FIVE_HOURS, now=now())
        secondary = pool_window(pool, WEEK, now=now())
        return V1Usage(
            request_count=totals.requests,
            total_tokens=totals.tokens,
            cached_input_tokens=totals.cached_input_tokens,
            total_cost_usd=0.0,
            limits=[],
            upstream_limits=[],
            account_pool_usage=PoolUsage(
                primary=primary.used_percent if primary else None,
                secondary=secondary.used_percent if secondary else None,
            ),
        )

    return router


def _accounts_of(key: ClientKey | None) -> frozenset[str] | None:
    return (frozenset(key.account_ids) or None) if key is not None else None


def _totals_of(counts: KeyCounts) -> UsageTotals:
    return UsageTotals(
        requests=counts.succeeded,
        tokens=counts.input_tokens + counts.output_tokens,
        cached_input_tokens=counts.cached_input_tokens,
    )


def _key_hash(request: Request, digest: Callable[[str], bytes]) -> bytes | None:
    told = request.headers.get(KEY_HASH_HEADER)
    if told is not None:
        try:
            return bytes.fromhex(told)
        except ValueError:
            return b""
    offered = request.headers.get(KEY_HEADER) or bearer_of(request.headers)
    return digest(offered) if offered else None


def _is_loopback(request: Request) -> bool:
    # The raw peer: whatever a header says about where a request came from, anybody can write it.
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
