"""The auth server, as a client sees it: refresh, authorization code with PKCE, device code.

Every call has a deadline. Answers are judged here, and come out as tokens or as one of the two errors: `AuthRefused`
carries the auth server's own code, `AuthUnreachable` whether the request may have been acted on.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from control_api.accounts.codes import code_of
from control_api.accounts.identity import Tokens
from control_api.answers import retry_after, whole_answer
from control_api.errors import AuthRefused, AuthUnreachable

CLIENT_ID = "app_EMoamEEZ73f0CkXaXp7hrann"
SCOPE = "openid profile email"
ORIGINATOR = "codex_cli_rs"
REFRESH_TIMEOUT = 8.0
LOGIN_TIMEOUT = 30.0
_DEVICE_LIFE = 900.0
_MIN_INTERVAL = 1.0
_DEFAULT_INTERVAL = 5.0
_PENDING = frozenset({"authorization_pending", "slow_down"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PkcePair:
    """A verifier and its challenge (RFC 7636)."""

    verifier: str = field(repr=False)
    challenge: str

    @classmethod
    def make(cls) -> "PkcePair":
        """Makes a new pair from 32 random bytes."""
        verifier = secrets.token_urlsafe(32)
        digest = hashlib.sha256(verifier.encode()).digest()
        return cls(verifier=verifier, challenge=base64.urlsafe_b64encode(digest).rstrip(b"=").decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """A device login that has begun."""

    device_auth_id: str = field(repr=False)
    user_code: str
    interval: float
    lasts: float


class AuthServer:
    """Talks to the auth server."""

    def __init__(self, client: httpx.AsyncClient, base_url: str) -> None:
        self._client = client
        self._base_url = base_url

    async def refresh(self, refresh_token: str) -> Tokens:
        """Exchanges a refresh token, which is good for this once. Raises `AuthRefused`, `AuthUnreachable`."""
        payload = await self._post(
            "/oauth/token",
            timeout=REFRESH_TIMEOUT,
            json={
                "grant_type": "refresh_token",
                "client_id": CLIENT_ID,
                "refresh_token": refresh_token,
                "scope": SCOPE,
            },
        )
        # An answer without a new refresh token leaves the old one in force; dropping both would lose the account.
        return _tokens(payload, refresh_token=refresh_token)

    async def redeem(self, code: str, *, verifier: str, redirect_uri: str) -> Tokens:
        """Redeems an authorization code. Raises `AuthRefused`, `AuthUnreachable`."""
        payload = await self._post(
            "/oauth/token",
            timeout=LOGIN_TIMEOUT,
            data={
                "grant_type": "authorization_code",
                "client_id": CLIENT_ID,
                "code": code,
                "code_verifier": verifier,
                "redirect_uri": redirect_uri,
            },
        )
        return _tokens(payload)

    def authorize_url(self, *, state: str, challenge: str, redirect_uri: str) -> str:
        """Returns the address that the operator's browser must open."""
        query = {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": redirect_uri,
            "scope": f"{SCOPE} offline_access",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "state": state,
            "id_token_add_organizations": "true",
            "codex_cli_simplified_flow": "true",
            "originator": ORIGINATOR,
        }
        return f"{self._base_url}/oauth/authorize?{urlencode(query, quote_via=quote)}"

    @property
    def device_page(self) -> str:
        """The page where a person types a device's code."""
        return f"{self._base_url}/codex/device"

    async def begin_device(self, *, now: float) -> DeviceCode:
        """Begins a device login. Raises `AuthRefused`, `AuthUnreachable`."""
        payload = await self._post(
            "/api/accounts/deviceauth/usercode", timeout=LOGIN_TIMEOUT, json={"client_id": CLIENT_ID}
        )
        device_auth_id, user_code = payload.get("device_auth_id"), payload.get("user_code") or payload.get("usercode")
        if not isinstance(device_auth_id, str) or not isinstance(user_code, str):
            raise AuthRefused("The auth server's answer lacks the device code.", code="invalid_response")
        return DeviceCode(
            device_auth_id=device_auth_id,
            user_code=user_code,
            interval=max(_MIN_INTERVAL, _number(payload.get("interval")) or _DEFAULT_INTERVAL),
            lasts=_life_of(payload, now),
        )

    async def poll_device(self, device_auth_id: str, user_code: str) -> Tokens | None:
        """Asks whether the code was typed; None while it was not. Raises `AuthRefused`, `AuthUnreachable`."""
        try:
            payload = await self._post(
                "/api/accounts/deviceauth/token",
                timeout=LOGIN_TIMEOUT,
                json={"device_auth_id": device_auth_id, "user_code": user_code},
            )
        except AuthRefused as refused:
            if refused.code in _PENDING or refused.status in {403, 404}:
                return None
            raise
        if payload.get("status") in _PENDING:
            return None
        if "access_token" in payload:
            return _tokens(payload)
        code, verifier = payload.get("authorization_code"), payload.get("code_verifier")
        if not isinstance(code, str) or not isinstance(verifier, str):
            raise AuthRefused("The auth server's answer lacks the authorization code.", code="invalid_response")
        return await self.redeem(code, verifier=verifier, redirect_uri=f"{self._base_url}/deviceauth/callback")

    async def _post(self, path: str, *, timeout: float, **body: Any) -> dict[str, Any]:
        try:
            response = await whole_answer(self._client, "POST", f"{self._base_url}{path}", within=timeout, **body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise AuthUnreachable(f"The auth server cannot be reached: {type(error).__name__}.", sent=False) from None
        except httpx.HTTPError as error:
            raise AuthUnreachable(f"The auth server did not answer: {type(error).__name__}.", sent=True) from None
        try:
            payload = response.json()
        except ValueError:
            payload = None
        if not response.is_success:
            code = code_of(response.status_code, payload)
            raise AuthRefused(
                f"The auth server refused: {code}.",
                code=code,
                status=response.status_code,
                retry_after=retry_after(response),
            )
        if not isinstance(payload, dict):
            raise AuthRefused("The auth server's answer is not JSON.", code="invalid_response")
        return payload


def _tokens(payload: dict[str, Any], *, refresh_token: str = "") -> Tokens:
    access = payload.get("access_token")
    rotated = payload.get("refresh_token") or refresh_token
    id_token = payload.get("id_token") or ""
    if not (isinstance(access, str) and access and isinstance(rotated, str) and rotated and isinstance(id_token, str)):
        raise AuthRefused("The auth server's answer lacks a token.", code="invalid_response")
    return Tokens(access_token=access, refresh_token=rotated, id_token=id_token)


def _life_of(payload: dict[str, Any], now: float) -> float:
    lasts = _number(payload.get("expires_in"))
    expires_at = payload.get("expires_at")
    if lasts is None and isinstance(expires_at, str):
        try:
            moment = datetime.fromisoformat(expires_at)
        except ValueError:
            return _DEVICE_LIFE
        lasts = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    return min(lasts, 3_600.0) if lasts and lasts > 0 else _DEVICE_LIFE


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None
