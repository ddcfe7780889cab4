"""REST route of refresh: now, whatever the schedule says."""

from fastapi import APIRouter

from control_api.accounts.routes import SETTLE_WITHIN, AccountId
from control_api.changes import PolicyChanges
from control_api.errors import problem_responses
from control_api.refresh.models import RefreshedView
from control_api.refresh.service import RefreshService


def refresh_routes(refresh: RefreshService, changes: PolicyChanges) -> APIRouter:
    """Returns the route below `/api/accounts/{id}`."""
    router = APIRouter(prefix="/api/accounts", tags=["accounts"])

    @router.post(
        "/{account_id}/refresh",
        summary="Refresh an account's credential now",
        responses=problem_responses(404, 409, 502),
    )
    async def refresh_account(account_id: AccountId) -> RefreshedView:
        refreshed = await refresh.refresh(account_id, reason="by an operator")
        await changes.settle(SETTLE_WITHIN)
        return RefreshedView(
            account_id=account_id,
            credential_version=refreshed.credential_version,
            rotated=refreshed.rotated,
        )

    return router
