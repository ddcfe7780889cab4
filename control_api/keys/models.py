"""Table and API shapes of API keys."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints
from pydantic import Field as Shape
from sqlalchemy import JSON, BigInteger, Column, Double, LargeBinary
from sqlmodel import Field, SQLModel

from control_api.accounts.models import EARLIEST, LATEST, ModelName, Moment, Name, OptionalMoment

AccountRef = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$", max_length=128)]
Expiry = Annotated[AwareDatetime, Shape(examples=["2030-01-01T00:00:00Z"])]


def _seconds(*, nullable: bool) -> Any:
    return Field(default=None, sa_column=Column(Double, nullable=nullable))


def _count() -> Any:
    return Field(default=0, sa_column=Column(BigInteger, nullable=False))


class ApiKey(SQLModel, table=True):
    """One API key of a client."""

    __tablename__ = "api_keys"

    id: str = Field(primary_key=True, max_length=64)
    name: str = Field(max_length=200)
    key_sha256: bytes = Field(sa_column=Column(LargeBinary(32), nullable=False, unique=True))
    hint: str = Field(max_length=16)
    created_at: float = _seconds(nullable=False)
    expires_at: float | None = _seconds(nullable=True)
    revoked_at: float | None = _seconds(nullable=True)
    models: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    account_ids: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    max_streams: int | None = None


class KeyUsage(SQLModel, table=True):
    """What one key has used since it was made. A row appears with its first use."""

    __tablename__ = "key_usage"

    key_id: str = Field(primary_key=True, foreign_key="api_keys.id", ondelete="CASCADE", max_length=64)
    told_at: float = _seconds(nullable=False)
    # Cumulative counters as told last, and of which epoch; totals are sums of their differences.
    epoch: int = _count()
    seen_succeeded: int = _count()
    seen_failed: int = _count()
    seen_input: int = _count()
    seen_cached: int = _count()
    seen_output: int = _count()
    seen_reasoning: int = _count()
    succeeded: int = _count()
    failed: int = _count()
    input_tokens: int = _count()
    cached_input_tokens: int = _count()
    output_tokens: int = _count()
    reasoning_tokens: int = _count()


class KeyInput(BaseModel):
    """A new key."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"name": "laptop", "models": ["gpt-5.5"], "max_streams": 4}}
    )

    name: Name
    expires_at: Expiry | None = Shape(default=None, description="When it stops working; null: never.")
    models: list[ModelName] = Shape(default_factory=list, max_length=200, description="Models it may use; empty: all.")
    account_ids: list[AccountRef] = Shape(
        default_factory=list, max_length=1_000, description="Accounts it may use; empty: all."
    )
    max_streams: int | None = Shape(
        default=None, ge=0, le=1_000_000, description="Streams at once; 0: unlimited, null: as the limits say."
    )


class KeyPatch(BaseModel):
    """What may be changed of a key. Fields that are left out stay."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"max_streams": 2}})

    name: Name | None = None
    expires_at: Expiry | None = None
    models: list[ModelName] | None = Shape(default=None, max_length=200)
    account_ids: list[AccountRef] | None = Shape(default=None, max_length=1_000)
    max_streams: int | None = Shape(default=None, ge=0, le=1_000_000)


class KeyView(BaseModel):
    """A key as the API shows it: never the key."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Shape(examples=["key_4f2a9c1b7d3e"])
    name: str
    hint: str = Shape(description="The first and last characters of the key.", examples=["sk-sg-ab…yz"])
    created_at: Moment
    expires_at: OptionalMoment
    revoked_at: OptionalMoment
    models: list[str]
    account_ids: list[str]
    max_streams: int | None


class KeyUsageView(BaseModel):
    """What a key has used since it was made."""

    model_config = ConfigDict(from_attributes=True)

    key_id: str = Shape(examples=["key_4f2a9c1b7d3e"])
    told_at: OptionalMoment = Shape(description="When edges told it last; null: it was never used.")
    succeeded: int = Shape(description="Responses that upstreams served.")
    failed: int = Shape(
        description="Tries that failed through an account or its upstream; one request may have several."
    )
    input_tokens: int = Shape(description="Cached ones included.")
    cached_input_tokens: int
    output_tokens: int = Shape(description="Reasoning included.")
    reasoning_tokens: int


class NewKey(KeyView):
    """A key that was just made. `key` is shown here and never again."""

    key: str = Shape(description="The key itself.", examples=["sk-sg-…"])


class KeyPage(BaseModel):
    """One page of keys."""

    items: list[KeyView]
    next_cursor: str | None = Shape(description="For the next page; null on the last.")


def seconds_of(moment: datetime | None) -> float | None:
    """Returns Unix seconds that a calendar can show."""
    return None if moment is None else min(LATEST, max(EARLIEST, moment.timestamp()))
