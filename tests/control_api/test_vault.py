import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from control_api.vault import Vault, VaultError
from service_runtime.process import StartupError

KEYS = [Fernet.generate_key().decode() for _ in range(2)]


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_what_goes_in_comes_out_and_cannot_be_read_in_between(secret):
    vault = Vault(KEYS[0])

    stored = vault.encrypt(secret)

    assert vault.decrypt(stored) == secret
    assert len(secret) < 4 or secret.encode() not in stored


def test_after_a_rotation_old_secrets_are_read_and_new_ones_need_the_new_key():
    old, rotated, new = Vault(KEYS[0]), Vault(f"{KEYS[1]}\n{KEYS[0]}"), Vault(KEYS[1])

    assert rotated.decrypt(old.encrypt("token")) == "token"
    assert new.decrypt(rotated.encrypt("token")) == "token"


def test_a_foreign_key_is_an_error_that_repeats_nothing():
    with pytest.raises(VaultError) as error:
        Vault(KEYS[1]).decrypt(Vault(KEYS[0]).encrypt("very secret"))

    assert "secret" not in str(error.value)


def test_the_key_file_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "keys" / "vault.key"

    stored = Vault.open(key=None, key_file=path).encrypt("token")

    assert Vault.open(key=None, key_file=path).decrypt(stored) == "token"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("keys", ["", "short", f"{KEYS[0]} nonsense"])
def test_a_malformed_key_stops_the_start(keys):
    with pytest.raises(StartupError):
        Vault(keys)
