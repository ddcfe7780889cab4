import pytest

from control_api.errors import InputRefused, NotFound
from control_api.keys.models import KeyInput, KeyPatch
from control_api.keys.service import KEY_PREFIX, digest_of


async def test_a_key_is_shown_once_and_only_its_hash_is_stored(parts, tmp_path):
    row, secret = await parts.keys.create(KeyInput(name="laptop"))

    stored = b"".join(path.read_bytes() for path in tmp_path.glob("control.db*"))
    assert secret.startswith(KEY_PREFIX)
    assert len(secret) > 40
    assert secret.encode() not in stored
    assert digest_of(secret) in stored
    assert row.hint[:5] in secret


async def test_only_a_valid_key_is_found_by_its_hash(parts):
    row, secret = await parts.keys.create(
        KeyInput.model_validate({"name": "brief", "expires_at": "2027-01-15T08:01:00Z"})
    )
    found = await parts.keys.of_digest(digest_of(secret))
    parts.clock.forward(120)
    expired = await parts.keys.of_digest(digest_of(secret))
    await parts.keys.patch(row.id, KeyPatch.model_validate({"expires_at": None}))
    prolonged = await parts.keys.of_digest(digest_of(secret))
    await parts.keys.revoke(row.id)
    await parts.keys.revoke(row.id)
    revoked = await parts.keys.of_digest(digest_of(secret))

    assert found.id == prolonged.id == row.id
    assert expired is None
    assert revoked is None


async def test_a_scope_names_accounts_that_exist(parts):
    account_id, _ = await parts.sign_in()
    row, _ = await parts.keys.create(KeyInput(name="scoped", account_ids=[account_id]))

    with pytest.raises(InputRefused) as refused:
        await parts.keys.patch(row.id, KeyPatch(account_ids=["nobody"]))
    with pytest.raises(NotFound):
        await parts.keys.get("key_none")

    assert refused.value.field == "account_ids"
    assert (await parts.keys.get(row.id)).account_ids == [account_id]
