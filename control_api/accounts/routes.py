"""REST routes of accounts."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from starlette.datastructures import UploadFile

from admission_client.policy import AccountStatus
from control_api.accounts.identity import read_auth_json
from control_api.accounts.login import LoginService
from control_api.accounts.models import (
    AccountPage,
    AccountPatch,
    AccountView,
    ApiKeyAccountInput,
    CallbackInput,
    ChangePage,
    ChangeView,
    LoginInput,
    LoginPage,
    LoginView,
    StartedLoginView,
)
from control_api.accounts.service import AccountService
from control_api.changes import PolicyChanges
from control_api.errors import InputRefused, problem_responses
from control_api.paging import (
    Cursor,
    PageLimit,
    decode_cursor,
    encode_cursor,
    encode_moment,
    moment_cursor,
    number_cursor,
)

SETTLE_WITHIN = 2.0
"""How long an answer waits for its change to be in force at the admission server, in seconds."""

AccountId = Annotated[str, PathParameter(pattern=r"^[a-z0-9_]+$", max_length=128, examples=["acct_demo_1a2b3c4d"])]
_AUTH_JSON = {
    "type": "object",
    "properties": {
        "tokens": {
            "type": "object",
            "properties": {
                "id_token": {"type": "string"},
                "access_token": {"type": "string"},
                "refresh_token": {"type": "string"},
                "account_id": {"type": "string"},
            },
            "required": ["access_token", "refresh_token"],
        },
        "last_refresh": {"type": "string", "format": "date-time"},
    },
    "required": ["tokens"],
}
_IMPORT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _AUTH_JSON,
                "example": {"tokens": {"id_token": "eyJ…", "access_token": "eyJ…", "refresh_token": "rt_…"}},
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"auth_json": {"type": "string", "format": "binary"}},
                    "required": ["auth_json"],
                }
            },
        },
    }
}


def account_routes(accounts: AccountService, changes: PolicyChanges) -> APIRouter:
    """Returns the routes below `/api/accounts`."""
    router = APIRouter(prefix="/api/accounts", tags=["accounts"])

    @router.get("", summary="List accounts")
    async def list_accounts(
        status: AccountStatus | None = None, limit: PageLimit = 100, cursor: Cursor = None
    ) -> AccountPage:
        found, last = await accounts.page(status=status, after_id=decode_cursor(cursor), limit=limit)
        items = [AccountView.model_validate(account) for account in found]
        return AccountPage(items=items, next_cursor=encode_cursor(last) if last else None)

    @router.post("", status_code=201, summary="Add an account with an API key")
    async def add_account(wanted: ApiKeyAccountInput) -> AccountView:
        account = await accounts.add_api_key(wanted)
        await changes.settle(SETTLE_WITHIN)
        return AccountView.model_validate(account)

    @router.post(
        "/import",
        status_code=201,
        summary="Import an auth.json",
        responses={
            200: {
                "model": AccountView,
                "description": "The seat was known: its tokens are replaced, and it is active.",
            },
            **problem_responses(409),
        },
        openapi_extra=_IMPORT_BODY,
    )
    async def import_account(request: Request, response: Response) -> AccountView:
        imported = await accounts.accept(read_auth_json(await _auth_json_of(request)), source="imported")
        if not imported.created:
            response.status_code = 200
        await changes.settle(SETTLE_WITHIN)
        return AccountView.model_validate(imported.account)

    @router.get("/{account_id}", summary="Read an account", responses=problem_responses(404))
    async def read_account(account_id: AccountId) -> AccountView:
        return AccountView.model_validate(await accounts.get(account_id))

    @router.patch("/{account_id}", summary="Change an account", responses=problem_responses(404, 409))
    async def patch_account(account_id: AccountId, patch: AccountPatch) -> AccountView:
        account = await accounts.patch(account_id, patch)
        await changes.settle(SETTLE_WITHIN)
        return AccountView.model_validate(account)

    @router.delete("/{account_id}", status_code=204, summary="Delete an account", responses=problem_responses(404))
    async def delete_account(account_id: AccountId) -> None:
        await accounts.delete(account_id)
        await changes.settle(SETTLE_WITHIN)

    @router.post("/{account_id}/pause", summary="Take an account out", responses=problem_responses(404))
    async def pause_account(account_id: AccountId) -> AccountView:
        account = await accounts.pause(account_id)
        await changes.settle(SETTLE_WITHIN)
        return AccountView.model_validate(account)

    @router.post("/{account_id}/resume", summary="Put an account back", responses=problem_responses(404, 409))
    async def resume_account(account_id: AccountId) -> AccountView:
        account = await accounts.resume(account_id)
        await changes.settle(SETTLE_WITHIN)
        return AccountView.model_validate(account)

    @router.get("/{account_id}/history", summary="What happened to an account", responses=problem_responses(404))
    async def account_history(account_id: AccountId, limit: PageLimit = 100, cursor: Cursor = None) -> ChangePage:
        found, last = await accounts.history(account_id, before=number_cursor(cursor), limit=limit)
        items = [ChangeView.model_validate(change) for change in found]
        return ChangePage(items=items, next_cursor=encode_cursor(str(last)) if last else None)

    return router


def login_routes(logins: LoginService) -> APIRouter:
    """Returns the routes below `/api/logins`."""
    router = APIRouter(prefix="/api/logins", tags=["accounts"])

    @router.get("", summary="List sign-ins")
    async def list_logins(limit: PageLimit = 100, cursor: Cursor = None) -> LoginPage:
        found, last = await logins.page(before=moment_cursor(cursor), limit=limit)
        items = [LoginView.model_validate(flow) for flow in found]
        return LoginPage(items=items, next_cursor=encode_moment(*last) if last else None)

    @router.post("", status_code=201, summary="Start a sign-in", responses=problem_responses(404, 502))
    async def start_login(wanted: LoginInput) -> StartedLoginView:
        started = await logins.start(wanted.method, account_id=wanted.account_id)
        flow = {name: getattr(started.flow, name) for name in LoginView.model_fields}
        return StartedLoginView(
            **flow,
            authorize_url=started.authorize_url,
            callback_url=started.callback_url,
            verification_url=started.verification_url,
        )

    @router.get("/{login_id}", summary="Read a sign-in", responses=problem_responses(404))
    async def read_login(login_id: AccountId) -> LoginView:
        return LoginView.model_validate(await logins.get(login_id))

    @router.post(
        "/{login_id}/callback", summary="Finish a browser sign-in by hand", responses=problem_responses(404, 409)
    )
    async def complete_login(login_id: AccountId, callback: CallbackInput) -> LoginView:
        return LoginView.model_validate(await logins.complete(login_id, callback.callback_url))

    @router.delete("/{login_id}", summary="Cancel a sign-in", responses=problem_responses(404))
    async def cancel_login(login_id: AccountId) -> LoginView:
        return LoginView.model_validate(await logins.cancel(login_id))

    return router


async def _auth_json_of(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return await request.body()
    async with request.form(max_files=1, max_fields=8) as form:
        uploads = form.getlist("auth_json")
        if len(uploads) != 1:
            raise InputRefused("Send exactly one file in the field auth_json.", field="auth_json")
        upload = uploads[0]
        return await upload.read() if isinstance(upload, UploadFile) else upload.encode()
