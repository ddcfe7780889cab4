import httpx
import pytest

from control_api.accounts.identity import Tokens, read_auth_json, sign_in
from control_api.errors import Conflict


async def imported(parts):
    """Imports a new account; returns its id and its file."""
    made = await parts.simulator.account()
    file = read_auth_json(httpx.Response(200, json=made["auth_json"]).content)
    return (await parts.accounts.accept(file, source="imported")).account.id, file


async def test_signing_in_ends_the_cooldown_of_an_account_that_is_active(parts):
    account_id, file = await imported(parts)
    async with parts.database.write() as session:
        account = await parts.accounts.load(session, account_id)
        await parts.accounts.cool_down(session, account, seconds=300, reason="http_401")

    await parts.accounts.accept(file, source="imported")

    account = await parts.accounts.get(account_id)
    assert (account.status, account.cooldown_until, account.cooldown_reason) == ("active", None, "")


async def test_a_file_whose_token_was_exchanged_here_does_not_replace_the_token_in_force(parts):
    account_id, file = await imported(parts)
    await parts.refresh.refresh(account_id, reason="test")
    in_force = (await parts.accounts.get(account_id)).refresh_token_sha256

    with pytest.raises(Conflict) as refused:
        await parts.accounts.accept(file, source="imported")
    await parts.refresh.refresh(account_id, reason="test")

    account = await parts.accounts.get(account_id)
    assert refused.value.code == "token_spent"
    assert (account.status, account.credential_version) == ("active", 3)
    assert account.refresh_token_sha256 != in_force


async def test_a_file_may_come_again_while_its_token_is_the_one_in_force(parts):
    account_id, file = await imported(parts)

    again = await parts.accounts.accept(file, source="imported")

    assert (again.account.id, again.created) == (account_id, False)


async def test_a_token_that_its_exchange_left_in_force_is_not_spent(parts, monkeypatch):
    account_id, file = await imported(parts)

    async def keep(refresh_token):
        return Tokens(access_token="another", refresh_token=refresh_token)

    monkeypatch.setattr(parts.auth_server, "refresh", keep)
    await parts.refresh.refresh(account_id, reason="test")

    await parts.accounts.accept(file, source="imported")
    kept = sign_in(file.tokens, account_id=file.seat.account_id)
    assert (await parts.accounts.accept(kept, source="imported")).account.credential_version == 4
