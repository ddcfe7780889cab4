"""Reads and changes accounts.

Rules: every change of status goes through `status.after` and leaves a line of history in the same transaction; a
sign-in replaces tokens and bumps the credential version; answers carry no token.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import delete as sql_delete
from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from admission_client.lease import AccountKind
from admission_client.policy import AccountStatus
from control_api.accounts.addresses import checked_base_url
from control_api.accounts.identity import UNKNOWN_PLAN, SignIn, fingerprint, slug
from control_api.accounts.models import Account, AccountChange, AccountPatch, ApiKeyAccountInput, SpentToken
from control_api.accounts.status import StatusEvent, after
from control_api.changes import PolicyChanges
from control_api.database import Database
from control_api.errors import Conflict, InputRefused, NotFound
from control_api.vault import Vault, VaultError
from service_runtime.addresses import PrivateHosts
from service_runtime.process import StartupError

HISTORY_KEPT = 500
"""Lines of history kept for each account."""
SPENT_KEPT = 90 * 86_400.0
"""How long a refresh token that was exchanged here is known as such, in seconds."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    account: Account
    created: bool


class AccountService:
    """The accounts of this installation."""

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        changes: PolicyChanges,
        upstream_base_url: str,
        private_hosts: PrivateHosts,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._vault = vault
        self._changes = changes
        self._upstream_base_url = upstream_base_url
        self._private_hosts = private_hosts
        self._now = now

    async def adopt_settings(self) -> None:
        """Moves `chatgpt` accounts to the upstream that the settings name. Raises `StartupError` for a foreign key."""
        async with self._database.write() as session:
            for account in (await session.exec(select(Account))).all():
                if account.kind == AccountKind.CHATGPT and account.base_url != self._upstream_base_url:
                    account.base_url = self._upstream_base_url
                    session.add(account)
                try:
                    self.access_token(account)
                except VaultError:
                    raise StartupError(
                        "the stored tokens were encrypted with another key; put the key file back that made them"
                    ) from None

    async def accept(self, sign_in: SignIn, *, target_account_id: str | None = None, source: str) -> Imported:
        """Stores a finished sign-in: a new account, or new tokens for the seat that exists, which reactivates it.

        With a target it is a re-authentication: raises `Conflict` when the seat is another one; also for tokens that
        were exchanged here already, which would replace good ones.
        """
        async with self._database.write() as session:
            if target_account_id is not None:
                target = await self.load(session, target_account_id)
                if target.seat_key != sign_in.seat.key:
                    raise Conflict("The sign-in belongs to another seat than this account.", code="seat_mismatch")
            known = (await session.exec(select(Account).where(Account.seat_key == sign_in.seat.key))).first()
            if known is not None:
                await self._check_not_spent(session, known, sign_in)
            account = known or await self._new_seat(session, sign_in)
            self._describe(account, sign_in)
            self._store_tokens(account, sign_in)
            session.add(account)
            await session.flush()
            await self._note(session, account, source, "tokens stored")
            await self.change(session, account, StatusEvent.SIGNED_IN, reason="")
        self._changes.mark()
        return Imported(account, created=known is None)

    async def add_api_key(self, wanted: ApiKeyAccountInput) -> Account:
        """Adds an account of kind `api_key`. Raises `InputRefused` for a base URL that is not allowed."""
        base_url = checked_base_url(wanted.base_url, private_hosts=self._private_hosts)
        now = self._now()
        async with self._database.write() as session:
            account_id = f"{slug(wanted.name)}_{secrets.token_hex(4)}"
            account = Account(
                id=account_id,
                kind=AccountKind.API_KEY.value,
                seat_key=f"api_key\n{account_id}",
                name=wanted.name,
                base_url=base_url,
                created_at=now,
                status_changed_at=now,
                access_token=self._vault.encrypt(api_key_of(wanted.api_key.get_secret_value())),
                credential_obtained_at=now,
                models=list(dict.fromkeys(wanted.models)),
            )
            session.add(account)
            await session.flush()
            await self._note(session, account, "added", "")
        self._changes.mark()
        return account

    async def page(
        self, *, status: AccountStatus | None, after_id: str, limit: int
    ) -> tuple[Sequence[Account], str | None]:
        """Returns accounts by id, and the id to go on after."""
        query = select(Account).where(col(Account.id) > after_id).order_by(col(Account.id)).limit(limit + 1)
        if status is not None:
            query = query.where(Account.status == status.value)
        async with self._database.read() as session:
            found = (await session.exec(query)).all()
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def get(self, account_id: str) -> Account:
        """Returns one account. Raises `NotFound`."""
        async with self._database.read() as session:
            return await self.load(session, account_id)

    async def history(
        self, account_id: str, *, before: int | None, limit: int
    ) -> tuple[Sequence[AccountChange], int | None]:
        """Returns what happened to an account, newest first, and the line to go on before."""
        query = select(AccountChange).where(AccountChange.account_id == account_id)
        if before is not None:
            query = query.where(col(AccountChange.id) < before)
        async with self._database.read() as session:
            await self.load(session, account_id)
            found = (await session.exec(query.order_by(col(AccountChange.id).desc()).limit(limit + 1))).all()
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def patch(self, account_id: str, patch: AccountPatch) -> Account:
        """Changes what an operator may change. Raises `NotFound`, `Conflict`, `InputRefused`."""
        told = patch.model_fields_set
        async with self._database.write() as session:
            account = await self.load(session, account_id)
            if patch.name is not None:
                account.name = patch.name
            if patch.weight is not None:
                account.weight = patch.weight
            if "models" in told:
                account.models = list(dict.fromkeys(patch.models or []))
            if "max_streams" in told:
                account.max_streams = patch.max_streams
            if "max_response_creates" in told:
                account.max_response_creates = patch.max_response_creates
            if patch.base_url is not None or patch.api_key is not None:
                await self._patch_upstream(session, account, patch)
            session.add(account)
        self._changes.mark()
        return account

    async def pause(self, account_id: str) -> Account:
        """Takes an account out; pausing a paused one is fine."""
        return await self._operator(account_id, StatusEvent.PAUSED)

    async def resume(self, account_id: str) -> Account:
        """Puts an account back, and clears limits and cooldowns. Raises `Conflict` when it must sign in first.

        A paused account goes back to the limit that it was paused in, while that lasts.
        """
        return await self._operator(account_id, StatusEvent.RESUMED)

    async def delete(self, account_id: str) -> None:
        """Removes an account with its tokens and its history."""
        async with self._database.write() as session:
            await session.delete(await self.load(session, account_id))
        self._changes.mark()

    # The rest is for the services above this one, inside their own transactions.

    async def load(self, session: AsyncSession, account_id: str, *, lock: bool = False) -> Account:
        """Returns an account within a transaction; `lock`: nobody changes it before the end. Raises `NotFound`."""
        account = await session.get(Account, account_id, with_for_update=lock)
        if account is None:
            raise NotFound("There is no such account.")
        return account

    async def change(
        self,
        session: AsyncSession,
        account: Account,
        event: StatusEvent,
        *,
        reason: str,
        reset_at: float | None = None,
    ) -> bool:
        """Applies an event of the status machine, with a line of history. Returns whether anything changed."""
        ended = self._end_cooldown(session, account) if event in {StatusEvent.SIGNED_IN, StatusEvent.RESUMED} else False
        before = account.standing
        standing = after(before, event, now=self._now(), reason=reason, reset_at=reset_at)
        if standing is before:
            return ended
        account.standing = standing
        session.add(account)
        await self._note(session, account, event.value, reason, before=before.status)
        return True

    async def cool_down(self, session: AsyncSession, account: Account, *, seconds: float, reason: str) -> None:
        """Keeps an account out for a while without changing its status."""
        account.cooldown_until = max(account.cooldown_until or 0.0, self._now() + seconds)
        account.cooldown_reason = reason
        session.add(account)
        await self._note(session, account, "cooled_down", reason)

    async def note(self, session: AsyncSession, account: Account, event: str, reason: str) -> None:
        """Adds a line of history that changes nothing."""
        await self._note(session, account, event, reason)

    def may_be_private(self, account: Account) -> bool:
        """Returns whether the account's upstream may be at a private, loopback or link-local address."""
        return self._private_hosts.allow(urlsplit(account.base_url).hostname or "")

    def access_token(self, account: Account) -> str:
        """Returns the bearer token for the upstream; empty when there is none. Secret."""
        return self._vault.decrypt(account.access_token) if account.access_token else ""

    def refresh_token(self, account: Account) -> str:
        """Returns the refresh token; empty when there is none. Secret, and never leaves this process."""
        return self._vault.decrypt(account.refresh_token) if account.refresh_token else ""

    async def store_rotation(self, session: AsyncSession, account: Account, sign_in: SignIn) -> None:
        """Puts refreshed tokens into an account; the caller has compared the old refresh token and commits.

        Who the account is stays: a refresh can tell of a new plan, never of another seat.
        """
        if sign_in.seat.plan != UNKNOWN_PLAN:
            account.plan = sign_in.seat.plan
        spent, now = account.refresh_token_sha256, self._now()
        self._store_tokens(account, sign_in)
        account.refreshed_at = now
        session.add(account)
        if account.refresh_token_sha256 != spent:
            await session.merge(SpentToken(account_id=account.id, refresh_token_sha256=spent, spent_at=now))
            await session.exec(
                sql_delete(SpentToken).where(
                    col(SpentToken.account_id) == account.id, col(SpentToken.spent_at) < now - SPENT_KEPT
                )
            )

    async def _operator(self, account_id: str, event: StatusEvent) -> Account:
        async with self._database.write() as session:
            account = await self.load(session, account_id)
            if event is StatusEvent.RESUMED and account.status == AccountStatus.REAUTH_REQUIRED:
                raise Conflict("This account must sign in again before it can serve.", code="sign_in_required")
            await self.change(session, account, event, reason="by an operator")
        self._changes.mark()
        return account

    def _end_cooldown(self, session: AsyncSession, account: Account) -> bool:
        if account.cooldown_until is None:
            return False
        account.cooldown_until, account.cooldown_reason = None, ""
        session.add(account)
        return True

    async def _patch_upstream(self, session: AsyncSession, account: Account, patch: AccountPatch) -> None:
        if account.kind != AccountKind.API_KEY:
            raise Conflict("Only accounts of kind api_key have a base URL and a key of their own.", code="wrong_kind")
        if patch.base_url is not None:
            account.base_url = checked_base_url(patch.base_url, private_hosts=self._private_hosts)
            account.credential_version += 1
        if patch.api_key is not None:
            account.access_token = self._vault.encrypt(api_key_of(patch.api_key.get_secret_value()))
            account.credential_version += 1
            account.credential_obtained_at = self._now()
            await self.change(session, account, StatusEvent.SIGNED_IN, reason="")

    async def _check_not_spent(self, session: AsyncSession, account: Account, sign_in: SignIn) -> None:
        digest = fingerprint(sign_in.tokens.refresh_token)
        if await session.get(SpentToken, (account.id, digest)) is not None:
            raise Conflict(
                "This refresh token was exchanged here before and is no good any more. "
                "Keep the account as it is, or sign in again.",
                code="token_spent",
            )

    async def _new_seat(self, session: AsyncSession, sign_in: SignIn) -> Account:
        seat, now = sign_in.seat, self._now()
        account_id = seat.local_id
        if await session.get(Account, account_id) is not None:  # another seat whose digest is the same
            account_id = f"{account_id}_{secrets.token_hex(4)}"
        return Account(
            id=account_id,
            kind=AccountKind.CHATGPT.value,
            seat_key=seat.key,
            name=seat.email[:200],
            base_url=self._upstream_base_url,
            created_at=now,
            status_changed_at=now,
            credential_version=0,
            credential_obtained_at=now,
        )

    def _describe(self, account: Account, sign_in: SignIn) -> None:
        seat = sign_in.seat
        account.email = seat.email
        account.plan = seat.plan
        account.upstream_account_id = seat.account_id
        account.user_id = seat.user_id
        account.workspace_id = seat.workspace_id
        account.workspace_label = seat.workspace_label
        account.seat_type = seat.seat_type
        account.base_url = self._upstream_base_url

    def _store_tokens(self, account: Account, sign_in: SignIn) -> None:
        tokens, now = sign_in.tokens, self._now()
        account.access_token = self._vault.encrypt(tokens.access_token)
        account.refresh_token = self._vault.encrypt(tokens.refresh_token)
        if tokens.id_token:
            account.id_token = self._vault.encrypt(tokens.id_token)
        account.refresh_token_sha256 = fingerprint(tokens.refresh_token)
        account.access_expires_at = sign_in.access_expires_at
        account.credential_version += 1
        account.credential_obtained_at = min(sign_in.refreshed_at or now, now)
        account.refreshed_at = None

    async def _note(
        self,
        session: AsyncSession,
        account: Account,
        event: str,
        reason: str,
        *,
        before: AccountStatus | None = None,
    ) -> None:
        line = AccountChange(
            account_id=account.id,
            at=self._now(),
            event=event,
            from_status=(before or AccountStatus(account.status)).value,
            to_status=account.status,
            reason=reason,
        )
        session.add(line)
        await session.flush()
        kept = (
            select(AccountChange.id)
            .where(AccountChange.account_id == account.id)
            .order_by(col(AccountChange.id).desc())
            .offset(HISTORY_KEPT)
            .limit(1)
        )
        last = (await session.exec(kept)).first()
        if last is not None:
            await session.exec(
                sql_delete(AccountChange).where(
                    col(AccountChange.account_id) == account.id, col(AccountChange.id) <= last
                )
            )

    async def count(self) -> int:
        """Returns how many accounts there are."""
        async with self._database.read() as session:
            return (await session.exec(select(func.count()).select_from(Account))).one()


async def stores_tokens(database: Database) -> bool:
    """Returns whether a token is stored, which only the key can read that encrypted it."""
    async with database.read() as session:
        return (
            await session.exec(select(Account.id).where(col(Account.access_token).is_not(None)))
        ).first() is not None


def api_key_of(secret: str) -> str:
    """Returns an API key as it may stand in a header. Raises `InputRefused`."""
    key = secret.strip()
    if not key or not key.isascii() or any(character <= " " or character == "\x7f" for character in key):
        raise InputRefused("An API key is printable ASCII without spaces.", field="api_key")
    return key
