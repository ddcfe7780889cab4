"""The intent row: an exchange has begun and its outcome is not stored yet."""

from pydantic import BaseModel
from pydantic import Field as Shape
from sqlalchemy import Column, Double
from sqlmodel import Field, SQLModel


class RefreshIntent(SQLModel, table=True):
    """Written before a refresh token is sent away, removed in the transaction that stores what came of it."""

    __tablename__ = "refresh_intents"

    account_id: str = Field(primary_key=True, foreign_key="accounts.id", ondelete="CASCADE", max_length=128)
    refresh_token_sha256: str = Field(max_length=64)
    started_at: float = Field(sa_column=Column(Double, nullable=False))


class RefreshedView(BaseModel):
    """What a refresh led to."""

    account_id: str
    credential_version: int = Shape(description="Version of the credential in force now.")
    rotated: bool = Shape(description="Whether this very request, or one it joined, exchanged the token.")
