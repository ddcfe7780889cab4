"""REST routes of limits."""

from fastapi import APIRouter, Response

from control_api.accounts.routes import SETTLE_WITHIN
from control_api.changes import PolicyChanges
from control_api.errors import PolicyNotAccepted
from control_api.limits.models import LimitsChanged, LimitsPatch, LimitsView
from control_api.limits.service import LimitService


def limit_routes(limits: LimitService, changes: PolicyChanges) -> APIRouter:
    """Returns the routes of `/api/limits`."""
    router = APIRouter(prefix="/api/limits", tags=["limits"])

    @router.get("", summary="Read all limits and where they come from")
    async def read_limits() -> LimitsView:
        return limits.view()

    @router.patch(
        "",
        summary="Change limits while everything runs",
        responses={
            202: {"model": LimitsChanged, "description": "Stored; in force as soon as the admission server is back."},
        },
    )
    async def patch_limits(patch: LimitsPatch, response: Response) -> LimitsChanged:
        change = await limits.patch(patch)
        try:
            version = await changes.settle(SETTLE_WITHIN)
        except PolicyNotAccepted:
            await limits.restore(change)
            raise
        if version is None:
            response.status_code = 202
        return LimitsChanged(version=version, applied=version is not None)

    return router
