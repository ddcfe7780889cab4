"""The whole pool's rate limits, for the headers that Codex shows its user as "the" limits.

One account's numbers would jump with every turn. What the pool has left is the control API's knowledge: it is fetched
in the background, at most twice a minute a key, and nothing ever waits for it. Unknown or old: the account's own
headers go on as they came.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_proxy.auth import Client
from edge_proxy.control import ControlApi
from edge_proxy.errors import ControlUnavailable
from edge_proxy.sse import json_object

_FETCH_AFTER = 30.0
_OLD_AFTER = 120.0
_MOST_KEYS = 1024
_PATH = "/api/codex/usage"
_PREFIXES = (b"x-codex-primary-", b"x-codex-secondary-", b"x-codex-credits-")

HeaderList = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class _Known:
    headers: HeaderList
    at: float
    asked_at: float


class PoolUsage:
    """What is known of the pool, by key. Close it at the end."""

    def __init__(self, control: ControlApi | None, clock: Callable[[], float]) -> None:
        self._control = control
        self._clock = clock
        self._known: OrderedDict[bytes | None, _Known] = OrderedDict()
        self._fetching: set[asyncio.Task[None]] = set()

    def applied(self, headers: HeaderList, client: Client) -> HeaderList:
        """Returns headers, named in lower case, with the limits of the pool in place of the account's, once known."""
        if self._control is None:
            return headers
        now = self._clock()
        known = self._known.get(client.key_sha256)
        if known is None or now - known.asked_at >= _FETCH_AFTER:
            self._fetch(client, known, now)
        if known is None or not known.headers or now - known.at >= _OLD_AFTER:
            return headers
        return [pair for pair in headers if not pair[0].startswith(_PREFIXES)] + known.headers

    def _fetch(self, client: Client, known: _Known | None, now: float) -> None:
        if known is None:
            known = self._known[client.key_sha256] = _Known([], now, now)
            if len(self._known) > _MOST_KEYS:
                self._known.popitem(last=False)
        known.asked_at = now
        task = asyncio.get_running_loop().create_task(self._ask(client, known))
        self._fetching.add(task)
        task.add_done_callback(self._fetching.discard)

    async def _ask(self, client: Client, known: _Known) -> None:
        if self._control is None:
            return
        try:
            status, content = await self._control.usage(_PATH, key_sha256=client.key_sha256, request_id="pool_usage")
        except ControlUnavailable:
            return
        if status == 200:
            known.headers, known.at = pool_headers(json_object(content)), self._clock()

    async def close(self) -> None:
        """Ends what is being fetched."""
        for task in self._fetching:
            task.cancel()
        await asyncio.gather(*self._fetching, return_exceptions=True)


def pool_headers(usage: Mapping[str, Any]) -> HeaderList:
    """Returns a usage answer as the headers that Codex reads."""
    headers: HeaderList = []
    limits = usage.get("rate_limit")
    for position in ("primary", "secondary"):
        window = limits.get(f"{position}_window") if isinstance(limits, dict) else None
        if not isinstance(window, dict) or not isinstance(window.get("limit_window_seconds"), int | float):
            continue
        told = {
            "used-percent": window.get("used_percent"),
            "window-minutes": int(window["limit_window_seconds"] // 60),
            "reset-at": window.get("reset_at"),
        }
        headers += [_header(f"{position}-{name}", value) for name, value in told.items() if value is not None]
    pool_credits = usage.get("credits")
    if isinstance(pool_credits, dict):
        for name in ("has_credits", "unlimited", "balance"):
            if pool_credits.get(name) is not None:
                headers.append(_header(f"credits-{name.replace('_', '-')}", pool_credits[name]))
    return headers


def _header(name: str, value: Any) -> tuple[bytes, bytes]:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"x-codex-{name}".encode("ascii"), text.encode("latin-1", "replace")
