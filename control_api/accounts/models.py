"""Tables and API shapes of accounts. Times are Unix seconds in the database and ISO 8601 in answers.

Secrets are stored encrypted, beside the SHA-256 of the refresh token, by which a rotation is compared and set: the
ciphertext of one token is different each time, its hash is not. `refreshed_at` is when this process exchanged the token
last; None for a credential as it was imported.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer, SecretStr, StringConstraints
from pydantic import Field as Shape
from sqlalchemy import JSON, Column, Double, LargeBinary, Text
from sqlmodel import Field, SQLModel

from admission_client.lease import AccountKind
from admission_client.policy import AccountStatus
from control_api.accounts.status import Standing


def _seconds(*, nullable: bool = True, index: bool = False) -> Any:
    # A Column object belongs to one table, so each field makes its own.
    return Field(default=None, sa_column=Column(Double, nullable=nullable, index=index))


class Account(SQLModel, table=True):
    """One upstream account."""

    __tablename__ = "accounts"

    id: str = Field(primary_key=True, max_length=128)
    kind: str = Field(max_length=16)
    seat_key: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    name: str = Field(max_length=200)
    email: str = Field(default="", max_length=320)
    plan: str = Field(default="", max_length=64)
    upstream_account_id: str = Field(default="", max_length=256)
    user_id: str = Field(default="", max_length=256)
    workspace_id: str = Field(default="", max_length=256)
    workspace_label: str = Field(default="", max_length=256)
    seat_type: str = Field(default="", max_length=64)
    base_url: str = Field(sa_column=Column(Text, nullable=False))
    created_at: float = _seconds(nullable=False)

    status: str = Field(default=AccountStatus.ACTIVE.value, max_length=32, index=True)
    status_reason: str = Field(default="", sa_column=Column(Text, nullable=False))
    status_changed_at: float = _seconds(nullable=False)
    reset_at: float | None = _seconds()
    blocked_at: float | None = _seconds()
    resume_to: str | None = Field(default=None, max_length=32)
    resume_reason: str = Field(default="", sa_column=Column(Text, nullable=False))
    cooldown_until: float | None = _seconds()
    cooldown_reason: str = Field(default="", sa_column=Column(Text, nullable=False))

    access_token: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    refresh_token: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    id_token: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    refresh_token_sha256: str = Field(default="", max_length=64)
    credential_version: int = 1
    credential_obtained_at: float = _seconds(nullable=False)
    refreshed_at: float | None = _seconds()
    access_expires_at: float | None = _seconds()
    rejected_version: int = 0
    signalled_at: float | None = _seconds()
    signalled_event: str = Field(default="", max_length=200)

    weight: float = Field(default=1.0, sa_column=Column(Double, nullable=False))
    models: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    max_streams: int | None = None
    max_response_creates: int | None = None

    @property
    def standing(self) -> Standing:
        """The account's place in the status machine."""
        return Standing(
            status=AccountStatus(self.status),
            reason=self.status_reason,
            changed_at=self.status_changed_at,
            reset_at=self.reset_at,
            blocked_at=self.blocked_at,
            resume_to=AccountStatus(self.resume_to) if self.resume_to else None,
            resume_reason=self.resume_reason,
        )

    @standing.setter
    def standing(self, standing: Standing) -> None:
        self.status = standing.status.value
        self.status_reason = standing.reason
        self.status_changed_at = standing.changed_at
        self.reset_at = standing.reset_at
        self.blocked_at = standing.blocked_at
        self.resume_to = standing.resume_to.value if standing.resume_to else None
        self.resume_reason = standing.resume_reason


class AccountChange(SQLModel, table=True):
    """One line of an account's history: what happened, when, and what followed."""

    __tablename__ = "account_changes"

    id: int | None = Field(default=None, primary_key=True)
    account_id: str = Field(foreign_key="accounts.id", ondelete="CASCADE", index=True, max_length=128)
    at: float = _seconds(nullable=False)
    event: str = Field(max_length=64)
    from_status: str = Field(max_length=32)
    to_status: str = Field(max_length=32)
    reason: str = Field(default="", sa_column=Column(Text, nullable=False))


class SpentToken(SQLModel, table=True):
    """A refresh token that was exchanged here: a file that still holds it is worth nothing."""

    __tablename__ = "spent_tokens"

    account_id: str = Field(primary_key=True, foreign_key="accounts.id", ondelete="CASCADE", max_length=128)
    refresh_token_sha256: str = Field(primary_key=True, max_length=64)
    spent_at: float = _seconds(nullable=False)


class LoginFlow(SQLModel, table=True):
    """One sign-in under way, or one that has ended."""

    __tablename__ = "login_flows"

    id: str = Field(primary_key=True, max_length=64)
    method: str = Field(max_length=16)
    status: str = Field(max_length=16, index=True)
    error: str = Field(default="", sa_column=Column(Text, nullable=False))
    target_account_id: str | None = Field(default=None, max_length=128)
    account_id: str | None = Field(default=None, max_length=128)
    state: str = Field(default="", max_length=128, index=True)
    secret: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    user_code: str = Field(default="", max_length=64)
    interval: float = Field(default=5.0, sa_column=Column(Double, nullable=False))
    created_at: float = _seconds(nullable=False)
    expires_at: float = _seconds(nullable=False)


EARLIEST, LATEST = 0.0, 253_402_300_799.0
"""What a calendar shows: 1970 to 9999. Other moments come from time zones at its edges, and from nonsense."""


def _iso(value: float | None) -> str | None:
    if value is None:
        return None
    shown = datetime.fromtimestamp(min(LATEST, max(EARLIEST, value)), UTC)
    return shown.isoformat().replace("+00:00", "Z")


Moment = Annotated[float, PlainSerializer(_iso, return_type=str)]
"""Unix seconds inside, ISO 8601 in answers."""
OptionalMoment = Annotated[float | None, PlainSerializer(_iso, return_type=str | None)]

Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$")
]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[!-~]+$")]
Cap = Annotated[int, Shape(ge=0, le=1_000_000, description="Seats; 0 means unlimited, null: as the limits say.")]


class AccountView(BaseModel):
    """An account as the API shows it: no token, ever."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Shape(examples=["acct_demo_1a2b3c4d"])
    kind: AccountKind
    name: str
    email: str
    plan: str = Shape(examples=["plus"])
    workspace_id: str
    workspace_label: str
    seat_type: str
    upstream_account_id: str
    base_url: str
    status: AccountStatus
    status_reason: str
    status_changed_at: Moment
    reset_at: OptionalMoment = Shape(description="When a limit is over.")
    cooldown_until: OptionalMoment
    cooldown_reason: str
    credential_version: int
    credential_obtained_at: Moment
    access_expires_at: OptionalMoment
    weight: float
    models: list[str] = Shape(description="Models it may serve; empty: all.")
    max_streams: int | None
    max_response_creates: int | None
    created_at: Moment


class AccountPage(BaseModel):
    """One page of accounts."""

    items: list[AccountView]
    next_cursor: str | None = Shape(description="For the next page; null on the last.")


class ChangeView(BaseModel):
    """One line of an account's history."""

    model_config = ConfigDict(from_attributes=True)

    at: Moment
    event: str = Shape(examples=["credential_rejected"])
    from_status: AccountStatus
    to_status: AccountStatus
    reason: str


class ChangePage(BaseModel):
    """One page of history, newest first."""

    items: list[ChangeView]
    next_cursor: str | None


class ApiKeyAccountInput(BaseModel):
    """A new account that speaks to an OpenAI-compatible service with an API key."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "kind": "api_key",
                "name": "OpenAI",
                "base_url": "https://api.openai.com/v1",
                "api_key": "sk-…",
            }
        },
    )

    kind: Literal["api_key"] = "api_key"
    name: Name
    base_url: str = Shape(min_length=1, max_length=2_000)
    api_key: SecretStr = Shape(min_length=1, max_length=4_096)
    models: list[ModelName] = Shape(default_factory=list, max_length=200)


class AccountPatch(BaseModel):
    """What an operator may change. Fields that are left out stay."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"name": "Team seat 3", "weight": 0.5, "max_streams": 4}}
    )

    name: Name | None = None
    weight: float | None = Shape(default=None, ge=0, le=1_000, description="Multiplies the remaining quota.")
    models: list[ModelName] | None = Shape(default=None, max_length=200)
    max_streams: Cap | None = None
    max_response_creates: Cap | None = None
    base_url: str | None = Shape(
        default=None, min_length=1, max_length=2_000, description="Of `api_key` accounts only."
    )
    api_key: SecretStr | None = Shape(
        default=None, min_length=1, max_length=4_096, description="Of `api_key` accounts only; reactivates."
    )


class LoginInput(BaseModel):
    """A new sign-in."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"method": "device"}})

    method: Literal["browser", "device"] = "browser"
    account_id: str | None = Shape(
        default=None,
        pattern=r"^[a-z0-9_]+$",
        max_length=128,
        description="Re-authenticates this account; another seat's sign-in is refused then.",
    )


class CallbackInput(BaseModel):
    """Where the browser ended after a login."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"callback_url": "http://localhost:1455/auth/callback?code=…&state=…"}},
    )

    callback_url: str = Shape(min_length=1, max_length=8_192)


class LoginView(BaseModel):
    """A sign-in, under way or ended."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    method: Literal["browser", "device"]
    status: Literal["pending", "done", "failed", "expired", "cancelled"]
    error: str
    target_account_id: str | None
    account_id: str | None = Shape(description="The account that was signed in.")
    user_code: str = Shape(description="Of a device login: what to type.")
    created_at: Moment
    expires_at: Moment


class StartedLoginView(LoginView):
    """A sign-in that was just started, and what to do now."""

    authorize_url: str | None = Shape(description="Of a browser login: open this.")
    callback_url: str | None = Shape(
        description="Of a browser login: where the browser ends. Paste it if it fails there."
    )
    verification_url: str | None = Shape(description="Of a device login: where to type the code.")


class LoginPage(BaseModel):
    """The sign-ins that are pending, and the last that have ended."""

    items: list[LoginView]
    next_cursor: str | None = Shape(description="For the next page; null on the last.")
