import httpx

from control_api.accounts.identity import read_auth_json


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
