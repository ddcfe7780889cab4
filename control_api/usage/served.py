"""Usage in the shapes that clients know: the pool's as Codex reads it, and that of `/v1/usage`. Pure.

A client sees one account where there are many: of each window the mean of what is used, weighed by the accounts' size,
and the earliest reset. `allowed` as long as any account has room.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel
from pydantic import Field as Shape

from control_api.usage.capacity import full_capacity
from control_api.usage.windows import FIVE_HOURS, MONTH, WEEK, UsageWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolAccount:
    """What counts of one account that may serve."""

    plan: str
    windows: tuple[UsageWindow, ...] = ()
    blocked: bool = False
    has_credits: bool = False
    unlimited_credits: bool = False


class ServedWindow(BaseModel):
    """One window, as Codex reads it."""

    used_percent: int = Shape(examples=[12])
    limit_window_seconds: int = Shape(examples=[18000])
    reset_after_seconds: int
    reset_at: int = Shape(description="Unix seconds.")


class ServedRateLimit(BaseModel):
    """The windows of the pool."""

    allowed: bool
    limit_reached: bool
    primary_window: ServedWindow | None
    secondary_window: ServedWindow | None
    monthly_window: ServedWindow | None


class ServedCredits(BaseModel):
    """Pay-as-you-go credits of the pool."""

    has_credits: bool
    unlimited: bool
    balance: str
    approx_local_messages: list[int] | None = None
    approx_cloud_messages: list[int] | None = None


class ServedResetCredits(BaseModel):
    """Reset credits, which a pool does not hand out."""

    available_count: int = 0


class CodexUsage(BaseModel):
    """What Codex shows as its usage."""

    plan_type: str = Shape(examples=["plus"])
    rate_limit: ServedRateLimit
    credits: ServedCredits
    rate_limit_reset_credits: ServedResetCredits
    additional_rate_limits: list[ServedWindow]


class ServedLimit(BaseModel):
    """A limit of a key or of the pool."""

    limit_type: str
    limit_window: str
    max_value: float
    current_value: float
    remaining_value: float
    model_filter: str | None = None
    reset_at: int | None = None
    source: str


class PoolUsage(BaseModel):
    """How much of the pool's windows is used, in percent; null when nobody has told."""

    primary: float | None
    secondary: float | None


class V1Usage(BaseModel):
    """Usage for OpenAI-style clients: what their key has used, or without a key all accounts."""

    request_count: int = Shape(description="Responses that were served to this key.")
    total_tokens: int = Shape(description="Input and output.")
    cached_input_tokens: int
    total_cost_usd: float = Shape(description="Always 0: what tokens cost is not known here.")
    limits: list[ServedLimit] = Shape(description="Always empty: keys have no quota of tokens or money.")
    upstream_limits: list[ServedLimit] = Shape(description="Always empty: see `account_pool_usage`.")
    account_pool_usage: PoolUsage


def codex_usage(pool: Sequence[PoolAccount], *, now: float) -> CodexUsage:
    """Returns the pool as Codex reads an account."""
    windows = {length: pool_window(pool, length, now=now) for length in (FIVE_HOURS, WEEK, MONTH)}
    allowed = any(not account.blocked and not _used_up(account, now) for account in pool)
    biggest = max(pool, key=lambda account: full_capacity(account.plan), default=None)
    return CodexUsage(
        plan_type=biggest.plan if biggest and biggest.plan else "unknown",
        rate_limit=ServedRateLimit(
            allowed=allowed,
            limit_reached=not allowed,
            primary_window=_served(windows[FIVE_HOURS], now),
            secondary_window=_served(windows[WEEK], now),
            monthly_window=_served(windows[MONTH], now),
        ),
        credits=ServedCredits(
            has_credits=any(account.has_credits for account in pool),
            unlimited=any(account.unlimited_credits for account in pool),
            balance="0",
        ),
        rate_limit_reset_credits=ServedResetCredits(),
        additional_rate_limits=[],
    )


def pool_window(pool: Sequence[PoolAccount], length: int, *, now: float) -> UsageWindow | None:
    """Returns one window over the pool; None when nobody has told of it."""
    told = [
        (full_capacity(account.plan), window)
        for account in pool
        for window in account.windows
        if window.length == length
    ]
    if not told:
        return None
    size = sum(weight for weight, _ in told)
    used = sum(weight * _used(window, now) for weight, window in told) / size
    resets = [window.resets_at for _, window in told if window.resets_at is not None and window.resets_at > now]
    return UsageWindow(length=length, used_percent=used, resets_at=min(resets, default=None))


def _served(window: UsageWindow | None, now: float) -> ServedWindow | None:
    if window is None:
        return None
    resets_at = window.resets_at if window.resets_at is not None else now + window.length
    return ServedWindow(
        used_percent=round(window.used_percent),
        limit_window_seconds=window.length,
        reset_after_seconds=max(0, round(resets_at - now)),
        reset_at=round(resets_at),
    )


def _used(window: UsageWindow, now: float) -> float:
    return 0.0 if window.resets_at is not None and window.resets_at <= now else window.used_percent


def _used_up(account: PoolAccount, now: float) -> bool:
    return any(_used(window, now) >= 100.0 for window in account.windows)
