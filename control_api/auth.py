"""The admin token, and the gate in front of `/api/`: who is not the operator gets no further, not even to a lane.

Tokens are compared in constant time. An address that offers too many wrong ones is refused for a while, right token or
not: a limit that lets the right guess through would limit nothing.
"""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from control_api.errors import NotSignedIn, TooManyFailures, problem_of, problem_response
from control_api.made_secrets import read_or_make

log = structlog.get_logger(__name__)

ADMIN_PREFIX = "/api/"
MAX_FAILURES = 20
FAILURE_WINDOW = 60.0
MAX_PEERS = 10_000


def load_admin_token(given: SecretStr | None, data_dir: Path) -> str:
    """Returns the token that was given, else the one in `<data dir>/admin-token`, made at the first start."""
    if given is not None and given.get_secret_value():
        return given.get_secret_value()
    path = data_dir / "admin-token"
    token, made = read_or_make(path, lambda: secrets.token_urlsafe(32))
    log.info("the admin token is in a file", path=str(path), made=made)
    return token


class AdminToken:
    """Knows the token, and compares in constant time."""

    def __init__(self, token: str) -> None:
        self._digest = hashlib.sha256(token.encode()).digest()

    def matches(self, offered: str) -> bool:
        """Returns whether this is the token. The time it takes says nothing about either."""
        return hmac.compare_digest(hashlib.sha256(offered.encode()).digest(), self._digest)


@dataclass(slots=True)
class _Failures:
    count: int
    since: float


class FailureLimit:
    """Counts wrong tokens by address, in windows that begin with the first one. Bounded."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def refused_for(self, peer: str) -> int | None:
        """Returns for how many seconds an address is still refused; None when it is not."""
        failures = self._failures.get(peer)
        if failures is None or failures.count < MAX_FAILURES:
            return None
        left = failures.since + FAILURE_WINDOW - self._clock()
        if left <= 0:
            del self._failures[peer]
            return None
        return max(1, round(left + 0.5))

    def note(self, peer: str) -> None:
        """Counts one wrong token."""
        now = self._clock()
        failures = self._failures.get(peer)
        if failures is None or now - failures.since >= FAILURE_WINDOW:
            self._failures[peer] = _Failures(1, now)
            self._failures.move_to_end(peer)
            if len(self._failures) > MAX_PEERS:
                self._failures.popitem(last=False)
        else:
            failures.count += 1


class AdminGate:
    """ASGI middleware: lets requests below `/api/` through to `inside` only with the admin token.

    `open_paths` are below `/api/` too but know their clients themselves.
    """

    def __init__(
        self, app: ASGIApp, *, token: AdminToken, failures: FailureLimit, open_paths: frozenset[str] = frozenset()
    ) -> None:
        self._app = app
        self._token = token
        self._failures = failures
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or not is_admin(scope["path"], self._open_paths):
            await self._app(scope, receive, send)
            return
        peer = (scope.get("client") or ("",))[0]
        refused_for = self._failures.refused_for(peer)
        if refused_for is not None:
            error = TooManyFailures("Wait before you try another token.", retry_after=refused_for)
            await problem_response(problem_of(error))(scope, receive, send)
            return
        offered = bearer_of(Headers(scope=scope))
        if offered is None or not self._token.matches(offered):
            # A request without any token is a person who has not read the manual, not a guess.
            if offered is not None:
                self._failures.note(peer)
            error_ = NotSignedIn("Send the admin token as 'Authorization: Bearer …'.")
            await problem_response(problem_of(error_))(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_admin(path: str, open_paths: frozenset[str]) -> bool:
    """Returns whether a path belongs to the admin API."""
    return path.startswith(ADMIN_PREFIX) and path.rstrip("/") not in open_paths


def bearer_of(headers: Headers) -> str | None:
    """Returns the bearer token of a request; None when there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
