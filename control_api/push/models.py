"""API shapes of the admission server's state, for people."""

from pydantic import BaseModel, ConfigDict
from pydantic import Field as Shape


class ResourceStateView(BaseModel):
    """One resource: its settings, and what is taken of it."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Shape(examples=["lanes/proxy_http"])
    limit: int = Shape(description="Seats; 0 means unlimited.")
    held: int
    waiting: int
    overdraft: int
    paused: bool
    reserve: int
    max_wait: float
    max_hold: float | None


class RecoveringView(BaseModel):
    """A session that was open before a restart of the admission server and has not come back."""

    model_config = ConfigDict(from_attributes=True)

    session_id: str
    instance: str
    time_left: float = Shape(description="Seconds that it is still waited for.")


class StateView(BaseModel):
    """The admission server at this moment."""

    model_config = ConfigDict(from_attributes=True)

    server_version: str
    epoch: int
    policy_version: int
    sessions: int
    uptime: float
    recovering: list[RecoveringView]
    resources: list[ResourceStateView]


class SessionView(BaseModel):
    """One holder of leases."""

    model_config = ConfigDict(from_attributes=True)

    session_id: str
    instance: str
    role: str
    leases: int
    waiting: int
    age: float
    expires_in: float
    connected: bool


class SessionPage(BaseModel):
    """One page of sessions."""

    items: list[SessionView]
    next_cursor: str | None


class Forgotten(BaseModel):
    """What ended with a session."""

    ended: int = Shape(description="Leases that ended with it.")
