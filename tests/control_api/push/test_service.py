import hashlib
from datetime import UTC, datetime

import pytest

from admission_client.policy import AccountStatus
from control_api.accounts.models import AccountPatch, ApiKeyAccountInput
from control_api.accounts.status import StatusEvent
from control_api.keys.models import KeyInput
from control_api.limits.models import LimitsPatch
from control_api.push.service import PolicyReader


@pytest.fixture
def reader(parts):
    return PolicyReader(
        database=parts.database,
        accounts=parts.accounts,
        keys=parts.keys,
        limits=parts.limits,
        weights=parts.usage,
        now=parts.clock,
        monotonic=lambda: 1_000.0,
    )


async def test_the_policy_is_everything_as_it_stands(parts, reader):
    account_id, _ = await parts.sign_in()
    made = ApiKeyAccountInput(name="Local model", base_url="http://127.0.0.1:9/v1", api_key="sk-local", models=["m"])
    added = await parts.accounts.add_api_key(made)
    key, secret = await parts.keys.create(KeyInput(name="k", models=["m"], account_ids=[added.id], max_streams=2))
    await parts.limits.patch(LimitsPatch.model_validate({"resources": {"lanes/proxy_http": {"limit": 3}}}))

    policy = await reader.read()

    accounts = {account.account_id: account for account in policy.accounts}
    assert accounts[added.id].access_token == "sk-local"
    assert accounts[added.id].models == ("m",)
    assert accounts[account_id].upstream_account_id
    assert accounts[account_id].access_token.startswith("eyJ")
    assert policy.keys[0].key_sha256 == hashlib.sha256(secret.encode()).digest()
    assert (policy.keys[0].key_id, policy.keys[0].account_ids, policy.keys[0].max_streams) == (key.id, (added.id,), 2)
    assert {settings.name: settings.limit for settings in policy.resources}["lanes/proxy_http"] == 3
    assert "sk-local" not in repr(policy)


async def test_reading_twice_gives_the_same_policy(parts, reader):
    account_id, _ = await parts.sign_in()
    async with parts.database.write() as session:
        account = await parts.accounts.load(session, account_id)
        await parts.accounts.cool_down(session, account, seconds=300, reason="test")

    assert await reader.read() == await reader.read()


async def test_moments_follow_the_wall_clock_after_this_host_slept_and_not_its_jitter(parts, reader):
    expires_at = datetime.fromtimestamp(parts.clock.now + 7_200, UTC)
    await parts.keys.create(KeyInput(name="k", expires_at=expires_at))
    parts.clock.forward(0.4)
    jittered = (await reader.read()).keys[0].expires_at
    parts.clock.forward(3_599.6)

    slept = (await reader.read()).keys[0].expires_at

    assert (jittered, slept) == (1_000.0 + 7_200.0, 1_000.0 + 3_600.0)


@pytest.mark.parametrize("event", [StatusEvent.PAUSED, StatusEvent.CREDENTIAL_DEAD, StatusEvent.ACCOUNT_DISABLED])
async def test_the_token_of_an_account_that_may_not_serve_stays_here(parts, reader, event):
    account_id, _ = await parts.sign_in()
    async with parts.database.write() as session:
        await parts.accounts.change(session, await parts.accounts.load(session, account_id), event, reason="test")

    (account,) = (await reader.read()).accounts

    assert account.access_token == ""
    assert account.status is not AccountStatus.ACTIVE


async def test_it_says_when_a_credential_was_exchanged_here_and_nothing_of_one_that_was_imported(parts, reader):
    account_id, _ = await parts.sign_in()
    (imported,) = (await reader.read()).accounts
    await parts.refresh.refresh(account_id, reason="test")

    (exchanged,) = (await reader.read()).accounts

    assert (imported.refreshed_at, exchanged.refreshed_at) == (None, 1_000.0)


async def test_own_caps_and_blocks_travel(parts, reader):
    account_id, _ = await parts.sign_in()
    await parts.accounts.patch(account_id, AccountPatch(max_streams=1, weight=0.5))
    async with parts.database.write() as session:
        account = await parts.accounts.load(session, account_id)
        await parts.accounts.change(
            session, account, StatusEvent.RATE_LIMITED, reason="test", reset_at=parts.clock.now + 60
        )

    (account,) = (await reader.read()).accounts

    assert account.blocked_until == 1_060.0
    assert [(cap.name, cap.limit, cap.reserve) for cap in account.caps] == [("accounts/-/streams", 1, 0)]
    assert account.weight == 3_780.0


async def test_revoked_and_expired_keys_are_not_in_it(parts, reader):
    revoked, _ = await parts.keys.create(KeyInput(name="revoked"))
    await parts.keys.create(KeyInput.model_validate({"name": "old", "expires_at": "2020-01-01T00:00:00Z"}))
    valid, _ = await parts.keys.create(KeyInput(name="valid"))
    await parts.keys.revoke(revoked.id)

    assert [key.key_id for key in (await reader.read()).keys] == [valid.id]
