"""What a limit is, where its value comes from, and the shapes of `/api/limits`.

A value comes from the last change through the API, else from the environment, else from the built-in default.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict
from pydantic import Field as Shape
from sqlalchemy import JSON, Column, Double
from sqlmodel import Field, SQLModel

from admission_client.policy import ResourceSettings, SelectionStrategy

GENERAL = ""
"""The resource name under which settings that belong to no resource are stored."""


def _stage(name: str, limit: int, max_wait: float) -> ResourceSettings:
    return ResourceSettings(name=f"stages/{name}", limit=limit, max_wait=max_wait, max_hold=300.0)


DEFAULTS: Mapping[str, ResourceSettings] = MappingProxyType(
    {
        settings.name: settings
        for settings in (
            ResourceSettings(name="lanes/proxy_http", limit=200),
            ResourceSettings(name="lanes/proxy_websocket", limit=200),
            ResourceSettings(name="lanes/proxy_compact", limit=16),
            ResourceSettings(name="lanes/dashboard", limit=50),
            _stage("token_refresh", 32, 0.0),
            _stage("upstream_websocket_connect", 64, 2.0),
            _stage("response_create", 64, 2.0),
            _stage("compact_response_create", 16, 2.0),
            ResourceSettings(name="accounts/-/streams", limit=8, max_wait=10.0, reserve=1),
            ResourceSettings(name="accounts/-/response_creates", limit=4, max_wait=10.0, max_hold=300.0),
            ResourceSettings(name="keys/-/streams", limit=0),
        )
    }
)
FAIR_SHARE_DEFAULT = 80


class Source(enum.StrEnum):
    """Where a value comes from."""

    DEFAULT = "default"
    ENVIRONMENT = "environment"
    CHANGED = "changed"


class LimitChange(SQLModel, table=True):
    """One value that was changed through the API."""

    __tablename__ = "limit_changes"

    resource: str = Field(primary_key=True, max_length=128)
    field: str = Field(primary_key=True, max_length=64)
    value: Any = Field(sa_column=Column(JSON, nullable=False))
    changed_at: float = Field(sa_column=Column(Double, nullable=False))


Seats = Annotated[int, Shape(ge=0, le=1_000_000)]
Seconds = Annotated[float, Shape(ge=0, le=86_400, allow_inf_nan=False)]


class ResourcePatch(BaseModel):
    """What to change of one resource. Left out: it stays. null: back to the environment's or the default value."""

    model_config = ConfigDict(extra="forbid")

    limit: Seats | None = Shape(default=None, description="Seats; 0 means unlimited, but counted.")
    max_wait: Seconds | None = Shape(default=None, description="Seconds that an acquire may wait; 0: not at all.")
    queue_limit: Seats | None = Shape(default=None, description="Acquires that may wait at once; 0: the default.")
    max_hold: Seconds | None = Shape(default=None, description="Seconds that a lease may be held; 0: for ever.")
    paused: bool | None = Shape(default=None, description="Whether nothing is granted for now.")
    reserve: Seats | None = Shape(default=None, description="Seats kept for turns that reattach.")


class LimitsPatch(BaseModel):
    """Changes of limits, applied together or not at all."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"resources": {"lanes/proxy_http": {"limit": 2}}}}
    )

    resources: dict[str, ResourcePatch | None] = Shape(
        default_factory=dict, max_length=100, description="By full name or family; null: all values of it go back."
    )
    fair_share_threshold_percent: Annotated[int, Shape(ge=0, le=100)] | None = Shape(
        default=None, description="From how full on a resource without a queue is shared; 0: never."
    )
    strategy: SelectionStrategy | None = Shape(default=None, description="How to pick among accounts.")


class ResourceView(BaseModel):
    """The settings of one resource in force, and where each comes from."""

    limit: int
    max_wait: float
    queue_limit: int
    max_hold: float
    paused: bool
    reserve: int
    sources: dict[str, Source] = Shape(examples=[{"limit": "changed", "max_wait": "default"}])


class LimitsView(BaseModel):
    """All limits."""

    version: int | None = Shape(description="The policy version that the admission server has applied; null: none.")
    resources: dict[str, ResourceView]
    fair_share_threshold_percent: int
    strategy: SelectionStrategy
    sources: dict[str, Source]


class LimitsChanged(BaseModel):
    """What became of a change of limits."""

    version: int | None = Shape(
        description="The policy version that the admission server has applied; null while it is away."
    )
    applied: bool = Shape(
        description="Whether it is in force. If not, it is stored and comes in force when admission is back."
    )
