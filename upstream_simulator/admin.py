"""The simulator's own side, `/__simulate/…`: make accounts, set what goes wrong with them, ask what was seen.

* `POST /__simulate/accounts {"id", "kind", "plan", "email", "chatgpt_account_id", "access_token_ttl"}`, all optional
* `PUT /__simulate/accounts/{id} {"simulate": "status=429, …", "on": "responses", "times": 1}`; `on` is one of
  responses (the default), models, usage, refresh; without `times` it holds until it is deleted. `"usage"` sets windows:
  `{"primary": {"used_percent": 100, "reset_after_seconds": 30}}`; `"tokens"` is one of expire, invalidate, end_families
* `GET` and `DELETE` of the same show it and clear its faults; `GET` and `DELETE /__simulate/stats` likewise
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from upstream_simulator.accounts import Account, AccountBook, ArmedFaults, Kind, Surface
from upstream_simulator.incoming import Refused, json_body, read_faults
from upstream_simulator.outgoing import json_answer
from upstream_simulator.refusals import error
from upstream_simulator.stats import Stats
from upstream_simulator.usage import Window


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_WishT = TypeVar("_WishT", bound=_Wish)


class NewAccount(_Wish):
    """The body of `POST /__simulate/accounts`."""

    id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    kind: Kind = Kind.CHATGPT
    plan: str | None = None
    email: str | None = None
    chatgpt_account_id: str | None = None
    access_token_ttl: float | None = Field(default=None, gt=0)


class WindowChange(_Wish):
    """How much of a window is used from now on, and when it begins anew."""

    used_percent: float = Field(ge=0, le=100)
    reset_after_seconds: float | None = Field(default=None, ge=0)


class UsageChange(_Wish):
    """New values for the usage windows."""

    primary: WindowChange | None = None
    secondary: WindowChange | None = None


class AccountChange(_Wish):
    """The body of `PUT /__simulate/accounts/{id}`."""

    simulate: str | None = None
    on: Surface = Surface.RESPONSES
    times: int | None = Field(default=None, gt=0)
    usage: UsageChange | None = None
    tokens: Literal["expire", "invalidate", "end_families"] | None = None
    plan: str | None = None


class Admin:
    """The HTTP side of it."""

    def __init__(self, *, accounts: AccountBook, stats: Stats, clock: Callable[[], float]) -> None:
        self._accounts = accounts
        self._stats = stats
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Returns the routes of this part."""
        return [
            web.post("/__simulate/accounts", self.create),
            web.get("/__simulate/accounts", self.list_all),
            web.get("/__simulate/accounts/{id}", self.show),
            web.put("/__simulate/accounts/{id}", self.change),
            web.delete("/__simulate/accounts/{id}", self.clear),
            web.get("/__simulate/stats", self.stats),
            web.delete("/__simulate/stats", self.forget),
            web.get("/health/live", self.health),
            web.get("/health/ready", self.health),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Makes an account and signs in to it."""
        wish = await _read(NewAccount, request)
        account = self._accounts.create(
            kind=wish.kind,
            account_id=wish.id,
            plan=wish.plan,
            email=wish.email,
            chatgpt_account_id=wish.chatgpt_account_id,
            access_token_ttl=wish.access_token_ttl,
        )
        if account.kind is Kind.API_KEY:
            return json_answer({"id": account.id, "api_key": account.api_key}, status=201)
        return json_answer({"id": account.id, "auth_json": self._accounts.auth_json(account)}, status=201)

    async def list_all(self, _request: web.Request) -> web.StreamResponse:
        """Lists the accounts."""
        return json_answer({"items": [self._shown(account) for account in self._accounts]})

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Shows one account."""
        return json_answer(self._shown(self._account(request)))

    async def change(self, request: web.Request) -> web.StreamResponse:
        """Sets faults, usage or the state of the tokens. A plain text body is the list of faults itself."""
        account = self._account(request)
        if request.content_type == "text/plain":
            change = AccountChange(simulate=await request.text())
        else:
            change = await _read(AccountChange, request)
        if change.simulate is not None:
            account.armed[change.on] = ArmedFaults(read_faults(change.simulate), change.simulate, change.times)
        if change.usage is not None:
            _set_usage(account, change.usage, self._clock())
        if change.plan is not None:
            account.plan = account.usage.plan = change.plan
        self._change_tokens(account, change.tokens)
        return json_answer(self._shown(account))

    async def clear(self, request: web.Request) -> web.StreamResponse:
        """Clears an account's faults; the account stays."""
        account = self._account(request)
        account.armed.clear()
        return json_answer(self._shown(account))

    async def stats(self, _request: web.Request) -> web.StreamResponse:
        """Tells what was seen."""
        return json_answer(self._stats.as_dict())

    async def forget(self, _request: web.Request) -> web.StreamResponse:
        """Begins to count anew."""
        self._stats.forget()
        return web.Response(status=204)

    async def health(self, _request: web.Request) -> web.StreamResponse:
        """Answers whoever waits for the start."""
        return json_answer({"status": "ok"})

    def _account(self, request: web.Request) -> Account:
        return self._accounts.get(request.match_info["id"])

    def _change_tokens(self, account: Account, what: str | None) -> None:
        tokens = self._accounts.tokens
        if what == "expire":
            tokens.expire_access_tokens(account.id)
        elif what == "invalidate":
            tokens.invalidate_access_tokens(account.id)
        elif what == "end_families":
            tokens.invalidate_refresh_tokens(account.id)

    def _shown(self, account: Account) -> dict[str, Any]:
        return {
            "id": account.id,
            "kind": account.kind.value,
            "plan": account.plan,
            "email": account.email,
            "chatgpt_account_id": account.chatgpt_account_id,
            "usage": account.usage.as_payload(self._clock()),
            "faults": {
                surface.value: {"simulate": armed.text, "times": armed.times}
                for surface, armed in account.armed.items()
            },
        }


async def _read(model: type[_WishT], request: web.Request) -> _WishT:
    body = (await json_body(request))[0] if request.can_read_body else {}
    try:
        return model.model_validate(body)
    except ValidationError as problem:
        raise Refused(error(400, code="invalid_request", message=str(problem))) from None


def _set_usage(account: Account, change: UsageChange, now: float) -> None:
    for window, wish in ((account.usage.primary, change.primary), (account.usage.secondary, change.secondary)):
        if wish is not None:
            _set_window(window.at(now), wish, now)


def _set_window(window: Window, wish: WindowChange, now: float) -> None:
    window.used_percent = wish.used_percent
    if wish.reset_after_seconds is not None:
        window.resets_at = now + wish.reset_after_seconds
