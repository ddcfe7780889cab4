"""Access tokens and refresh tokens: issued, presented, expired, invalidated. Pure; the clock is passed in.

A refresh token is good for one exchange. Presenting it again ends its whole family, as the real auth server does, so
that a client which refreshes twice at the same time is found out. An exchange leaves older access tokens alive.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CLAIMS = "https://api.openai.com/auth"


class TokenRejected(Exception):
    """A token is not good, for the reason that `code` names."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Whose tokens these are, as the claims of a JWT say it."""

    account: str
    email: str
    plan: str
    chatgpt_account_id: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSet:
    """What an exchange gives."""

    access_token: str
    refresh_token: str
    id_token: str


@dataclass(slots=True)
class _AccessToken:
    account: str
    expires_at: float
    invalidated: bool = False


@dataclass(slots=True)
class _RefreshToken:
    seat: Seat
    ttl: float
    family: str
    used: bool = False


class TokenBook:
    """Every token that was issued, and whether it is still good."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._signing_key = secrets.token_bytes(32)
        self._access: dict[str, _AccessToken] = {}
        self._refresh: dict[str, _RefreshToken] = {}
        self._ended_families: set[str] = set()

    def issue(self, seat: Seat, *, ttl: float) -> TokenSet:
        """Signs in: a new family of tokens. The access token lives for `ttl` seconds."""
        return self._issue(seat, ttl, family=secrets.token_hex(8))

    def account_of(self, access_token: str) -> str:
        """Returns the account of a live access token. Raises `TokenRejected`."""
        known = self._access.get(access_token)
        if known is None:
            raise TokenRejected("invalid_authentication")
        if known.invalidated:
            raise TokenRejected("token_invalidated")
        if known.expires_at <= self._clock():
            raise TokenRejected("token_expired")
        return known.account

    def exchange(self, refresh_token: str) -> TokenSet:
        """Exchanges a refresh token for a new set, once. Raises `TokenRejected`, and a second use ends the family."""
        known = self._refresh.get(refresh_token)
        if known is None:
            raise TokenRejected("invalid_refresh_token")
        if known.used:
            self._ended_families.add(known.family)
            raise TokenRejected("refresh_token_reused")
        if known.family in self._ended_families:
            raise TokenRejected("refresh_token_invalidated")
        known.used = True
        return self._issue(known.seat, known.ttl, family=known.family)

    def account_of_refresh_token(self, refresh_token: str) -> str | None:
        """Returns whose refresh token this is or was; None when it was never issued."""
        known = self._refresh.get(refresh_token)
        return known.seat.account if known else None

    def expire_access_tokens(self, account: str) -> None:
        """Makes the account's access tokens look as if their time had passed."""
        for token in self._access.values():
            if token.account == account:
                token.expires_at = min(token.expires_at, self._clock())

    def invalidate_access_tokens(self, account: str) -> None:
        """Takes the account's access tokens back before their time, as a sign-out everywhere does."""
        for token in self._access.values():
            if token.account == account:
                token.invalidated = True

    def invalidate_refresh_tokens(self, account: str) -> None:
        """Ends all of the account's token families: no exchange succeeds until somebody signs in again."""
        self._ended_families.update(t.family for t in self._refresh.values() if t.seat.account == account)

    def _issue(self, seat: Seat, ttl: float, *, family: str) -> TokenSet:
        now = self._clock()
        access_token = self._jwt(seat, now, ttl)
        refresh_token = f"rt_{secrets.token_urlsafe(32)}"
        self._access[access_token] = _AccessToken(seat.account, now + ttl)
        self._refresh[refresh_token] = _RefreshToken(seat, ttl, family)
        return TokenSet(
            access_token=access_token, refresh_token=refresh_token, id_token=self._jwt(seat, now, ttl=3600.0)
        )

    def _jwt(self, seat: Seat, now: float, ttl: float) -> str:
        claims = {
            "iss": "https://auth.openai.com",
            "sub": f"auth0|{seat.user_id}",
            "jti": secrets.token_hex(8),
            "iat": int(now),
            "exp": int(now + ttl),
            "email": seat.email,
            CLAIMS: {
                "chatgpt_account_id": seat.chatgpt_account_id,
                "chatgpt_user_id": seat.user_id,
                "user_id": seat.user_id,
                "chatgpt_plan_type": seat.plan,
            },
        }
        signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
        signature = hmac.new(self._signing_key, signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{_unpadded(signature)}"


def _part(value: dict[str, Any]) -> str:
    return _unpadded(json.dumps(value, separators=(",", ":")).encode())


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
