"""REST routes of API keys."""

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as PathParameter

from control_api.accounts.routes import SETTLE_WITHIN
from control_api.changes import PolicyChanges
from control_api.errors import problem_responses
from control_api.keys.models import KeyInput, KeyPage, KeyPatch, KeyUsageView, KeyView, NewKey
from control_api.keys.service import KeyService
from control_api.keys.usage import KeyUsageService
from control_api.paging import Cursor, PageLimit, decode_cursor, encode_cursor

KeyId = Annotated[str, PathParameter(pattern=r"^[a-z0-9_]+$", max_length=64, examples=["key_4f2a9c1b7d3e"])]


def key_routes(keys: KeyService, usage: KeyUsageService, changes: PolicyChanges) -> APIRouter:
    """Returns the routes below `/api/keys`."""
    router = APIRouter(prefix="/api/keys", tags=["keys"])

    @router.get("", summary="List API keys")
    async def list_keys(limit: PageLimit = 100, cursor: Cursor = None) -> KeyPage:
        found, last = await keys.page(after_id=decode_cursor(cursor), limit=limit)
        items = [KeyView.model_validate(key) for key in found]
        return KeyPage(items=items, next_cursor=encode_cursor(last) if last else None)

    @router.post("", status_code=201, summary="Make an API key")
    async def create_key(wanted: KeyInput) -> NewKey:
        row, secret = await keys.create(wanted)
        await changes.settle(SETTLE_WITHIN)
        return NewKey(key=secret, **{name: getattr(row, name) for name in KeyView.model_fields})

    @router.get("/{key_id}", summary="Read an API key", responses=problem_responses(404))
    async def read_key(key_id: KeyId) -> KeyView:
        return KeyView.model_validate(await keys.get(key_id))

    @router.get("/{key_id}/usage", summary="What an API key has used", responses=problem_responses(404))
    async def key_usage(key_id: KeyId) -> KeyUsageView:
        return KeyUsageView.model_validate(await usage.of(key_id))

    @router.patch("/{key_id}", summary="Change an API key", responses=problem_responses(404))
    async def patch_key(key_id: KeyId, patch: KeyPatch) -> KeyView:
        row = await keys.patch(key_id, patch)
        await changes.settle(SETTLE_WITHIN)
        return KeyView.model_validate(row)

    @router.delete("/{key_id}", status_code=204, summary="Revoke an API key", responses=problem_responses(404))
    async def revoke_key(key_id: KeyId) -> None:
        await keys.revoke(key_id)
        await changes.settle(SETTLE_WITHIN)

    return router
