"""The accounts that exist over here, and the faults that were set for them. Pure; the clock is passed in."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from upstream_simulator.faults import NO_FAULTS, Faults
from upstream_simulator.tokens import Seat, TokenBook, TokenRejected, TokenSet
from upstream_simulator.usage import Usage


class Kind(StrEnum):
    """What an account signs in with."""

    CHATGPT = "chatgpt"
    API_KEY = "api_key"


class Surface(StrEnum):
    """Where an account's faults apply."""

    RESPONSES = "responses"
    MODELS = "models"
    USAGE = "usage"
    REFRESH = "refresh"


class UnknownAccount(LookupError):
    """No account has this id."""


@dataclass(slots=True)
class ArmedFaults:
    """Faults that await the next requests of an account: `times` of them, or all of them when None."""

    faults: Faults
    text: str
    times: int | None = None


@dataclass(slots=True, kw_only=True)
class Account:
    """One account: its identity, its usage, its faults."""

    id: str
    kind: Kind
    plan: str
    email: str
    chatgpt_account_id: str
    user_id: str
    access_token_ttl: float
    usage: Usage
    api_key: str | None = None
    armed: dict[Surface, ArmedFaults] = field(default_factory=dict)

    @property
    def seat(self) -> Seat:
        """The identity that its tokens carry."""
        return Seat(
            account=self.id,
            email=self.email,
            plan=self.plan,
            chatgpt_account_id=self.chatgpt_account_id,
            user_id=self.user_id,
        )

    def next_faults(self, surface: Surface) -> Faults:
        """Returns the faults for the next request there, without counting it."""
        armed = self.armed.get(surface)
        return armed.faults if armed else NO_FAULTS

    def take_faults(self, surface: Surface) -> Faults:
        """Returns the faults for the next request there, and counts it."""
        armed = self.armed.get(surface)
        if armed is None:
            return NO_FAULTS
        if armed.times is not None:
            armed.times -= 1
            if armed.times <= 0:
                del self.armed[surface]
        return armed.faults


class AccountBook:
    """All accounts, with their tokens and keys."""

    def __init__(self, *, tokens: TokenBook, clock: Callable[[], float], access_token_ttl: float) -> None:
        self.tokens = tokens
        self._clock = clock
        self._access_token_ttl = access_token_ttl
        self._accounts: dict[str, Account] = {}
        self._by_key: dict[str, str] = {}

    def create(
        self,
        *,
        kind: Kind = Kind.CHATGPT,
        account_id: str | None = None,
        plan: str | None = None,
        email: str | None = None,
        chatgpt_account_id: str | None = None,
        access_token_ttl: float | None = None,
    ) -> Account:
        """Creates an account, or changes the one that has this id already."""
        name = account_id or f"{'acct' if kind is Kind.CHATGPT else 'key'}_{secrets.token_hex(6)}"
        plan = plan or "plus"
        account = Account(
            id=name,
            kind=kind,
            plan=plan,
            email=email or f"{name}@example.com",
            chatgpt_account_id=chatgpt_account_id or name,
            user_id=f"user-{name}",
            access_token_ttl=access_token_ttl or self._access_token_ttl,
            usage=Usage.of_new_account(plan=plan, now=self._clock()),
        )
        if kind is Kind.API_KEY:
            account.api_key = f"sk-simulated-{secrets.token_urlsafe(24)}"
            self._by_key[account.api_key] = name
        self._accounts[name] = account
        return account

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def get(self, account_id: str) -> Account:
        """Returns an account. Raises `UnknownAccount`."""
        try:
            return self._accounts[account_id]
        except KeyError:
            raise UnknownAccount(account_id) from None

    def sign_in(self, account: Account) -> TokenSet:
        """Issues a new family of tokens."""
        return self.tokens.issue(account.seat, ttl=account.access_token_ttl)

    def by_access_token(self, access_token: str) -> Account:
        """Returns the account of a live access token. Raises `TokenRejected`."""
        return self._accounts[self.tokens.account_of(access_token)]

    def by_api_key(self, api_key: str) -> Account:
        """Returns the account of an API key. Raises `TokenRejected`."""
        if api_key not in self._by_key:
            raise TokenRejected("invalid_api_key")
        return self._accounts[self._by_key[api_key]]

    def latest(self) -> Account | None:
        """Returns the ChatGPT account that was made last: the one that is signed in at the browser."""
        return next((a for a in reversed(self._accounts.values()) if a.kind is Kind.CHATGPT), None)

    def auth_json(self, account: Account) -> dict[str, Any]:
        """Signs in and returns the file that Codex would have written."""
        tokens = self.sign_in(account)
        return {
            "auth_mode": "chatgpt",
            "OPENAI_API_KEY": None,
            "tokens": {
                "id_token": tokens.id_token,
                "access_token": tokens.access_token,
                "refresh_token": tokens.refresh_token,
                "account_id": account.chatgpt_account_id,
            },
            "last_refresh": datetime.fromtimestamp(self._clock(), UTC).isoformat().replace("+00:00", "Z"),
        }
