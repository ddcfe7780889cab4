"""The secrets of an installation are made once, are different everywhere, and each process can read only its own."""

import stat
import subprocess
import sys

import pytest
from cryptography.fernet import Fernet

from service_runtime.deployment_secrets import ROLES, DeploymentSecrets
from service_runtime.private_files import read_private


@pytest.fixture
def installation(tmp_path):
    """A new installation, whose control API has no data yet."""
    (tmp_path / "control_data").mkdir()
    return DeploymentSecrets(tmp_path / "secrets", tmp_path / "control_data")


def test_what_is_there_already_stays(installation):
    installation.make()
    files = [*installation.directory.rglob("*-token"), installation.vault_key]
    first = {path: path.read_text() for path in files}
    installation.make()

    assert {path: path.read_text() for path in files} == first
    assert len(set(first.values())) == 6


def test_the_operators_admin_token_follows_the_control_apis(installation):
    installation.make()
    installation.admin_token.write_text("changed-by-hand\n")
    installation.make()

    assert read_private(installation.operator_admin_token) == "changed-by-hand"


def test_two_installations_have_nothing_in_common(tmp_path):
    one, other = (DeploymentSecrets(tmp_path / name, tmp_path / "none") for name in ("one", "other"))
    one.make()
    other.make()

    assert read_private(one.admin_token) != read_private(other.admin_token)
    assert read_private(one.admission_tokens) != read_private(other.admission_tokens)
    assert read_private(one.vault_key) != read_private(other.vault_key)


def test_the_tokens_file_follows_the_roles_own_files(installation):
    made = installation
    made.make()
    made.role_token("edge").write_text("changed-by-hand")
    made.make()

    lines = dict(line.split() for line in read_private(made.admission_tokens).splitlines())
    assert lines == {role: read_private(made.role_token(role)) for role in ROLES}


def test_only_the_owner_can_read_them(installation):
    installation.make()

    found = list(installation.directory.rglob("*"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir()} == {0o700}


def test_an_edge_finds_nothing_but_its_own_token_in_its_folder(installation):
    installation.make()

    assert [path.name for path in (installation.directory / "edge").iterdir()] == ["admission-token"]


# --- The key of the vault, without which everything that is stored is lost.


def test_a_new_installation_has_a_key_that_encrypts(installation):
    notes = installation.make()

    assert Fernet(read_private(installation.vault_key)).encrypt(b"token")
    assert notes == []


def test_a_key_that_the_control_api_made_in_its_data_folder_is_taken_over_with_all_its_lines(installation):
    keys = "\n".join(Fernet.generate_key().decode() for _ in range(2))
    (installation.control_data / "vault.key").write_text(keys + "\n")
    (installation.control_data / "control.db").touch()
    notes = installation.make()

    assert installation.vault_key.read_text() == keys + "\n"
    assert (installation.control_data / "vault.key").read_text() == keys + "\n"
    assert "was taken over" in notes[0]
    assert not any(key in notes[0] for key in keys.split())


def test_a_key_that_was_taken_over_is_not_replaced_by_what_comes_after_it(installation):
    installation.make()
    key = read_private(installation.vault_key)
    (installation.control_data / "vault.key").write_text("another\n")
    (installation.control_data / "control.db").touch()

    assert installation.make() == []
    assert read_private(installation.vault_key) == key


def test_beside_a_database_that_came_without_its_key_no_second_one_is_made(installation):
    (installation.control_data / "control.db").touch()
    notes = installation.make()

    assert not installation.vault_key.exists()
    assert "put the key back" in notes[0]


def test_it_runs_as_a_command(installation):
    (installation.control_data / "control.db").touch()
    command = [sys.executable, "-m", "service_runtime.deployment_secrets"]
    done = subprocess.run(
        [*command, str(installation.directory), str(installation.control_data)],
        check=True,
        timeout=30,
        capture_output=True,
        text=True,
    )

    assert installation.admission_tokens.exists()
    assert "put the key back" in done.stdout
