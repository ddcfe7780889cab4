"""Logins on their way: authorization codes with PKCE, and device codes. Pure; the clock is passed in."""

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

_CODE_TTL = 600.0
_DEVICE_TTL = 900.0
_USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


class LoginRefused(Exception):
    """A step of a login is not right, for the OAuth reason that `code` names."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grant:
    account: str
    challenge: str
    redirect_uri: str
    expires_at: float


@dataclass(slots=True, kw_only=True)
class DeviceLogin:
    """A device that waits until a person types its code."""

    device_auth_id: str
    user_code: str
    expires_at: float
    account: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceGrant:
    """What an approved device exchanges for tokens. The auth server chose the verifier itself."""

    authorization_code: str
    code_challenge: str
    code_verifier: str


class Logins:
    """The logins that were begun and not finished."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._grants: dict[str, _Grant] = {}
        self._devices: dict[str, DeviceLogin] = {}

    def grant(self, account: str, *, challenge: str, redirect_uri: str) -> str:
        """Returns an authorization code for an account; it is good once, for ten minutes."""
        code = f"ac_{secrets.token_urlsafe(24)}"
        self._grants[code] = _Grant(
            account=account, challenge=challenge, redirect_uri=redirect_uri, expires_at=self._clock() + _CODE_TTL
        )
        return code

    def redeem(self, code: str, *, verifier: str, redirect_uri: str) -> str:
        """Returns the account of an authorization code. Raises `LoginRefused`."""
        grant = self._grants.pop(code, None)
        if grant is None or grant.expires_at <= self._clock():
            raise LoginRefused("invalid_grant")
        if not secrets.compare_digest(_challenge(verifier), grant.challenge) or redirect_uri != grant.redirect_uri:
            raise LoginRefused("invalid_grant")
        return grant.account

    def begin_device(self) -> DeviceLogin:
        """Begins a login on a device without a browser."""
        letters = "".join(secrets.choice(_USER_CODE_LETTERS) for _ in range(8))
        login = DeviceLogin(
            device_auth_id=f"deviceauth_{secrets.token_hex(12)}",
            user_code=f"{letters[:4]}-{letters[4:]}",
            expires_at=self._clock() + _DEVICE_TTL,
        )
        self._devices[login.device_auth_id] = login
        return login

    def approve_device(self, user_code: str, account: str) -> None:
        """Notes that a person typed the code. Raises `LoginRefused` when no device waits with it."""
        login = next((d for d in self._devices.values() if d.user_code == user_code.strip().upper()), None)
        if login is None or login.expires_at <= self._clock():
            raise LoginRefused("unknown_user_code")
        login.account = account

    def poll_device(self, device_auth_id: str, user_code: str, *, redirect_uri: str) -> DeviceGrant:
        """Returns what an approved device may redeem, once. Until then raises `LoginRefused`: authorization_pending."""
        login = self._devices.get(device_auth_id)
        if login is None or login.user_code != user_code:
            raise LoginRefused("unknown_device")
        if login.expires_at <= self._clock():
            raise LoginRefused("expired_token")
        if login.account is None:
            raise LoginRefused("authorization_pending")
        del self._devices[device_auth_id]
        verifier = secrets.token_urlsafe(32)
        challenge = _challenge(verifier)
        code = self.grant(login.account, challenge=challenge, redirect_uri=redirect_uri)
        return DeviceGrant(authorization_code=code, code_challenge=challenge, code_verifier=verifier)


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
