"""The secrets of an installation are made once, are different everywhere, and each process can read only its own."""

import stat
import subprocess
import sys

from service_runtime.deployment_secrets import ROLES, DeploymentSecrets
from service_runtime.private_files import read_private


def test_what_is_there_already_stays(tmp_path):
    made = DeploymentSecrets(tmp_path)
    made.make()
    first = {path: path.read_text() for path in tmp_path.rglob("*-token")}
    made.make()

    assert {path: path.read_text() for path in tmp_path.rglob("*-token")} == first
    assert len(set(first.values())) == 5


def test_two_installations_have_nothing_in_common(tmp_path):
    one, other = DeploymentSecrets(tmp_path / "one"), DeploymentSecrets(tmp_path / "other")
    one.make()
    other.make()

    assert read_private(one.admin_token) != read_private(other.admin_token)
    assert read_private(one.admission_tokens) != read_private(other.admission_tokens)


def test_the_tokens_file_follows_the_roles_own_files(tmp_path):
    made = DeploymentSecrets(tmp_path)
    made.make()
    made.role_token("edge").write_text("changed-by-hand")
    made.make()

    lines = dict(line.split() for line in read_private(made.admission_tokens).splitlines())
    assert lines == {role: read_private(made.role_token(role)) for role in ROLES}


def test_only_the_owner_can_read_them(tmp_path):
    DeploymentSecrets(tmp_path / "secrets").make()

    found = list((tmp_path / "secrets").rglob("*"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir()} == {0o700}


def test_an_edge_finds_nothing_but_its_own_token_in_its_folder(tmp_path):
    DeploymentSecrets(tmp_path).make()

    assert [path.name for path in (tmp_path / "edge").iterdir()] == ["admission-token"]


def test_it_runs_as_a_command(tmp_path):
    subprocess.run([sys.executable, "-m", "service_runtime.deployment_secrets", str(tmp_path)], check=True, timeout=30)

    assert DeploymentSecrets(tmp_path).admission_tokens.exists()
