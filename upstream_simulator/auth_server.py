"""The auth server: token refresh, browser login with PKCE, device-code login.

Nobody types a password here: `/oauth/authorize` sends the browser back at once, and opening `/codex/device` with a user
code approves it. Both sign in the account that `login_hint` names, else the one that was made last.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from upstream_simulator.accounts import Account, AccountBook, Surface, UnknownAccount
from upstream_simulator.incoming import Refused, json_body, obey_whole, read_faults
from upstream_simulator.logins import LoginRefused, Logins
from upstream_simulator.outgoing import json_answer
from upstream_simulator.refusals import Refusal
from upstream_simulator.stats import Stats
from upstream_simulator.tokens import TokenRejected, TokenSet

CLIENT_ID = "app_EMoamEEZ73f0CkXaXp7hrann"
_POLL_INTERVAL = 1
_SENTENCES = {
    "refresh_token_reused": "Your refresh token has already been used to generate a new access token.",
    "refresh_token_invalidated": "Your session has ended. Please log in again.",
    "invalid_refresh_token": "Could not validate your refresh token.",
    "invalid_client": "The client is unknown.",
    "invalid_grant": "The code is not good.",
    "unsupported_grant_type": "This grant type is not supported.",
}


class AuthServer:
    """The HTTP side of the auth server."""

    def __init__(self, *, accounts: AccountBook, logins: Logins, stats: Stats, clock: Callable[[], float]) -> None:
        self._accounts = accounts
        self._logins = logins
        self._stats = stats
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Returns the routes of this part."""
        return [
            web.post("/oauth/token", self.token),
            web.get("/oauth/authorize", self.authorize),
            web.post("/api/accounts/deviceauth/usercode", self.device_code),
            web.post("/api/accounts/deviceauth/token", self.device_token),
            web.get("/codex/device", self.device_page),
        ]

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Refreshes (JSON) or redeems an authorization code (form)."""
        if request.content_type == "application/x-www-form-urlencoded":
            form = await request.post()
            return self._redeem({name: str(value) for name, value in form.items()})
        body, _ = await json_body(request)
        if not isinstance(body, dict) or body.get("grant_type") != "refresh_token":
            raise Refused(_refused(400, "unsupported_grant_type"))
        _check_client(body)
        return await self._refresh(str(body.get("refresh_token")), request.headers.get("x-simulate", ""))

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        """Sends the browser back with a code, as after a login."""
        query = request.query
        if query.get("client_id") != CLIENT_ID or query.get("response_type") != "code":
            raise Refused(_refused(400, "invalid_client"))
        if query.get("code_challenge_method") != "S256" or not query.get("code_challenge"):
            raise Refused(_refused(400, "invalid_request"))
        redirect_uri = query.get("redirect_uri", "")
        if not redirect_uri.startswith("http://localhost:"):
            raise Refused(_refused(400, "invalid_redirect_uri"))
        account = self._signed_in(query.get("login_hint"))
        code = self._logins.grant(account.id, challenge=query["code_challenge"], redirect_uri=redirect_uri)
        answer = urlencode({"code": code, "state": query.get("state", "")})
        raise web.HTTPFound(f"{redirect_uri}?{answer}")

    async def device_code(self, request: web.Request) -> web.StreamResponse:
        """Begins a device login."""
        body, _ = await json_body(request)
        _check_client(body if isinstance(body, dict) else {})
        login = self._logins.begin_device()
        return json_answer(
            {
                "device_auth_id": login.device_auth_id,
                "user_code": login.user_code,
                "interval": str(_POLL_INTERVAL),
                "expires_at": datetime.fromtimestamp(login.expires_at, UTC).isoformat(),
            }
        )

    async def device_token(self, request: web.Request) -> web.StreamResponse:
        """Answers a device that asks whether its code was typed: 403 until it was."""
        body, _ = await json_body(request)
        body = body if isinstance(body, dict) else {}
        try:
            grant = self._logins.poll_device(
                str(body.get("device_auth_id")),
                str(body.get("user_code")),
                redirect_uri=f"{request.scheme}://{request.host}/deviceauth/callback",
            )
        except LoginRefused as refused:
            raise Refused(_refused(403, refused.code)) from None
        return json_answer(
            {
                "authorization_code": grant.authorization_code,
                "code_challenge": grant.code_challenge,
                "code_verifier": grant.code_verifier,
            }
        )

    async def device_page(self, request: web.Request) -> web.StreamResponse:
        """Stands for the page where a person types a device's code."""
        user_code = request.query.get("user_code")
        if not user_code:
            return web.Response(text="Open this page with ?user_code=… to sign the device in.\n")
        try:
            self._logins.approve_device(user_code, self._signed_in(request.query.get("login_hint")).id)
        except LoginRefused as refused:
            raise Refused(_refused(404, refused.code)) from None
        return web.Response(text="The device is signed in. You may close this page.\n")

    async def _refresh(self, refresh_token: str, wish: str) -> web.StreamResponse:
        owner = self._accounts.tokens.account_of_refresh_token(refresh_token)
        granted = False
        try:
            if owner is not None:
                account = self._accounts.get(owner)
                faults = read_faults(wish).over(account.take_faults(Surface.REFRESH))
                await obey_whole(faults, account, self._clock())
            tokens = self._accounts.tokens.exchange(refresh_token)
            granted = True
        except TokenRejected as rejected:
            raise Refused(_refused(401, rejected.code)) from None
        finally:
            self._stats.exchange(refresh_token, granted=granted)
        return _token_answer(tokens)

    def _redeem(self, form: dict[str, str]) -> web.StreamResponse:
        if form.get("grant_type") != "authorization_code":
            raise Refused(_refused(400, "unsupported_grant_type"))
        _check_client(form)
        try:
            account = self._logins.redeem(
                form.get("code", ""),
                verifier=form.get("code_verifier", ""),
                redirect_uri=form.get("redirect_uri", ""),
            )
        except LoginRefused as refused:
            raise Refused(_refused(400, refused.code)) from None
        return _token_answer(self._accounts.sign_in(self._accounts.get(account)))

    def _signed_in(self, hint: str | None) -> Account:
        try:
            return self._accounts.get(hint) if hint else self._accounts.latest() or self._accounts.create()
        except UnknownAccount:
            raise Refused(_refused(400, "unknown_login_hint")) from None


def _check_client(values: dict[str, Any]) -> None:
    if values.get("client_id") != CLIENT_ID:
        raise Refused(_refused(401, "invalid_client"))


def _token_answer(tokens: TokenSet) -> web.Response:
    return json_answer(
        {
            "access_token": tokens.access_token,
            "refresh_token": tokens.refresh_token,
            "id_token": tokens.id_token,
            "token_type": "Bearer",
        }
    )


def _refused(status: int, code: str) -> Refusal:
    message = _SENTENCES.get(code, f"The request was refused: {code}.")
    return Refusal(
        status=status,
        body={"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}},
    )
