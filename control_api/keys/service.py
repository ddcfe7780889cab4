"""Makes, changes and revokes API keys. A key has 256 random bits, so its plain SHA-256 is all that needs storing."""

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from control_api.accounts.models import Account
from control_api.changes import PolicyChanges
from control_api.database import Database
from control_api.errors import InputRefused, NotFound
from control_api.keys.models import ApiKey, KeyInput, KeyPatch, seconds_of

KEY_PREFIX = "sk-sg-"


class KeyService:
    """The API keys of this installation."""

    def __init__(self, *, database: Database, changes: PolicyChanges, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._changes = changes
        self._now = now

    async def create(self, wanted: KeyInput) -> tuple[ApiKey, str]:
        """Makes a key. Returns its row, and the key itself for the only time."""
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        row = ApiKey(
            id=f"key_{secrets.token_hex(6)}",
            name=wanted.name,
            key_sha256=digest_of(secret),
            hint=f"{secret[:8]}…{secret[-2:]}",
            created_at=self._now(),
            expires_at=seconds_of(wanted.expires_at),
            models=list(dict.fromkeys(wanted.models)),
            account_ids=list(dict.fromkeys(wanted.account_ids)),
            max_streams=wanted.max_streams,
        )
        async with self._database.write() as session:
            await _check_accounts(session, row.account_ids)
            session.add(row)
        self._changes.mark()
        return row, secret

    async def page(self, *, after_id: str, limit: int) -> tuple[Sequence[ApiKey], str | None]:
        """Returns keys by id, revoked ones too, and the id to go on after."""
        query = select(ApiKey).where(col(ApiKey.id) > after_id).order_by(col(ApiKey.id)).limit(limit + 1)
        async with self._database.read() as session:
            found = (await session.exec(query)).all()
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def get(self, key_id: str) -> ApiKey:
        """Returns one key. Raises `NotFound`."""
        async with self._database.read() as session:
            return await _load(session, key_id)

    async def patch(self, key_id: str, patch: KeyPatch) -> ApiKey:
        """Changes a key. Raises `NotFound`, `InputRefused`."""
        told = patch.model_fields_set
        async with self._database.write() as session:
            row = await _load(session, key_id)
            if patch.name is not None:
                row.name = patch.name
            if "expires_at" in told:
                row.expires_at = seconds_of(patch.expires_at)
            if "models" in told:
                row.models = list(dict.fromkeys(patch.models or []))
            if "account_ids" in told:
                row.account_ids = list(dict.fromkeys(patch.account_ids or []))
                await _check_accounts(session, row.account_ids)
            if "max_streams" in told:
                row.max_streams = patch.max_streams
            session.add(row)
        self._changes.mark()
        return row

    async def revoke(self, key_id: str) -> None:
        """Ends a key for good; its row stays, so that old logs can be read. Revoking twice is fine."""
        async with self._database.write() as session:
            row = await _load(session, key_id)
            row.revoked_at = row.revoked_at or self._now()
            session.add(row)
        self._changes.mark()

    async def valid(self) -> Sequence[ApiKey]:
        """Returns the keys that work now or until they expire."""
        now = self._now()
        query = select(ApiKey).where(col(ApiKey.revoked_at).is_(None)).order_by(col(ApiKey.id))
        async with self._database.read() as session:
            found = (await session.exec(query)).all()
        return [key for key in found if key.expires_at is None or key.expires_at > now]

    async def of_digest(self, digest: bytes) -> ApiKey | None:
        """Returns the valid key with this SHA-256, None when it is none of ours."""
        query = select(ApiKey).where(ApiKey.key_sha256 == digest, col(ApiKey.revoked_at).is_(None))
        async with self._database.read() as session:
            key = (await session.exec(query)).first()
        return key if key and (key.expires_at is None or key.expires_at > self._now()) else None


def digest_of(secret: str) -> bytes:
    """Returns what is stored of a key."""
    return hashlib.sha256(secret.encode()).digest()


async def _load(session: AsyncSession, key_id: str) -> ApiKey:
    key = await session.get(ApiKey, key_id)
    if key is None:
        raise NotFound("There is no such key.")
    return key


async def _check_accounts(session: AsyncSession, account_ids: Sequence[str]) -> None:
    if not account_ids:
        return
    known = set((await session.exec(select(Account.id).where(col(Account.id).in_(account_ids)))).all())
    unknown = [account_id for account_id in account_ids if account_id not in known]
    if unknown:
        raise InputRefused(f"There is no account {unknown[0]}.", field="account_ids")
