"""Tables and API shapes of usage."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic import Field as Shape
from sqlalchemy import BigInteger, Column, Double, Text
from sqlmodel import Field, SQLModel

from control_api.accounts.models import Moment, OptionalMoment


def _seconds(*, nullable: bool = True, index: bool = False) -> Any:
    return Field(default=None, sa_column=Column(Double, nullable=nullable, index=index))


def _count() -> Any:
    return Field(default=0, sa_column=Column(BigInteger, nullable=False))


class UsageState(SQLModel, table=True):
    """What is known of an account's usage besides its windows, and how its queries go."""

    __tablename__ = "usage_states"

    account_id: str = Field(primary_key=True, foreign_key="accounts.id", ondelete="CASCADE", max_length=128)
    told_at: float | None = _seconds()
    has_credits: bool = False
    unlimited_credits: bool = False
    credit_balance: str = Field(default="", max_length=64)
    cooldown_until: float | None = _seconds()
    cooldown_reason: str = Field(default="", sa_column=Column(Text, nullable=False))
    pending_plan: str = Field(default="", max_length=64)
    # Cumulative counters as told last, and of which epoch; totals are sums of their differences.
    epoch: int = _count()
    seen_succeeded: int = _count()
    seen_failed: int = _count()
    seen_input: int = _count()
    seen_cached: int = _count()
    seen_output: int = _count()
    succeeded: int = _count()
    failed: int = _count()
    input_tokens: int = _count()
    cached_input_tokens: int = _count()
    output_tokens: int = _count()


class UsageWindowRow(SQLModel, table=True):
    """The latest of one window of one account."""

    __tablename__ = "usage_windows"

    account_id: str = Field(primary_key=True, foreign_key="accounts.id", ondelete="CASCADE", max_length=128)
    length: int = Field(primary_key=True)
    used_percent: float = Field(sa_column=Column(Double, nullable=False))
    resets_at: float | None = _seconds()
    told_at: float = _seconds(nullable=False)


class UsageSample(SQLModel, table=True):
    """One point of a window's history, for charts."""

    __tablename__ = "usage_samples"

    id: int | None = Field(default=None, primary_key=True)
    account_id: str = Field(foreign_key="accounts.id", ondelete="CASCADE", index=True, max_length=128)
    length: int
    used_percent: float = Field(sa_column=Column(Double, nullable=False))
    recorded_at: float = _seconds(nullable=False, index=True)


class WindowView(BaseModel):
    """One usage window."""

    model_config = ConfigDict(from_attributes=True)

    length: int = Shape(description="Length in seconds: 18000, 604800, 2592000.", examples=[18000])
    used_percent: float
    resets_at: OptionalMoment
    told_at: Moment


class UsageView(BaseModel):
    """What is known of one account's usage."""

    account_id: str
    plan: str
    windows: list[WindowView]
    told_at: OptionalMoment = Shape(description="When the upstream told it last; null: never.")
    has_credits: bool
    unlimited_credits: bool
    credit_balance: str
    cooldown_until: OptionalMoment = Shape(description="Until when usage is not asked for, after a refusal.")
    cooldown_reason: str
    remaining: float = Shape(description="What is left, as a weight for selection.")
    succeeded: int
    failed: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


class UsagePage(BaseModel):
    """One page of usage."""

    items: list[UsageView]
    next_cursor: str | None


class SampleView(BaseModel):
    """One point of history."""

    model_config = ConfigDict(from_attributes=True)

    length: int
    used_percent: float
    recorded_at: Moment


class SamplePage(BaseModel):
    """One page of history, newest first."""

    items: list[SampleView]
    next_cursor: str | None


class PolledView(BaseModel):
    """How a usage query went."""

    account_id: str
    outcome: str = Shape(examples=["stored"], description="`stored`, or why nothing was.")
