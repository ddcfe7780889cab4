"""From the first tag on, `make check` refuses a contract that breaks those who use the tagged one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FILE = Path("proto/admission/v1/state_service.proto")


class Clone:
    """A repository with the contract and nothing else."""

    def __init__(self, folder):
        self.folder = folder

    def git(self, *arguments):
        who = ("-c", "user.name=Tests", "-c", "user.email=tests@example.com", "-c", "protocol.file.allow=always")
        subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True, timeout=60, capture_output=True)

    def commit(self, message):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def check(self):
        """Runs the check and returns its exit status and all it says."""
        done = subprocess.run(
            ["make", "--no-print-directory", "check-breaking", f"BIN={Path(sys.executable).parent}", "READY="],
            cwd=self.folder,
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def replace(self, old, new):
        file = self.folder / FILE
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    def shallow(self, folder):
        folder.mkdir()
        copy = Clone(folder)
        copy.git("clone", "--quiet", "--depth", "1", "--no-tags", f"file://{self.folder}", ".")
        return copy


@pytest.fixture
def clone(tmp_path):
    made = Clone(tmp_path / "origin")
    made.folder.mkdir()
    for name in ("Makefile", "buf.yaml"):
        shutil.copy(REPOSITORY / name, made.folder)
    shutil.copytree(REPOSITORY / "proto", made.folder / "proto", ignore=shutil.ignore_patterns("*.py", "*.pyi", "__*"))
    made.git("init", "--quiet")
    made.commit("The contract")
    return made


def rename_a_field(clone):
    clone.replace("string server_version = 1;", "string version_of_server = 1;")


def test_without_a_tag_it_says_that_there_is_nothing_to_compare_with(clone):
    rename_a_field(clone)

    status, told = clone.check()
    assert status == 0
    assert "no tag v* here" in told


def test_a_contract_that_only_grew_is_let_through(clone):
    clone.git("tag", "v0.1.0")
    clone.replace(
        "google.protobuf.Duration uptime = 7;", "google.protobuf.Duration uptime = 7;\n  // New.\n  uint32 more = 8;"
    )

    status, told = clone.check()
    assert (status, told.strip()) == (0, "buf breaking: compared with v0.1.0")


@pytest.mark.parametrize("annotated", [False, True])
def test_a_field_that_was_renamed_after_the_tag_is_refused(clone, annotated):
    clone.git("tag", *(("--annotate", "--message", "First") if annotated else ()), "v0.1.0")
    rename_a_field(clone)
    clone.commit("Rename a field")

    status, told = clone.check()
    assert status != 0
    assert 'changed name from "server_version" to "version_of_server"' in told


def test_it_compares_with_the_last_tag_that_is_a_version(clone):
    clone.git("tag", "v0.1.0")
    rename_a_field(clone)
    clone.commit("Rename a field")
    clone.git("tag", "v0.2.0")
    clone.git("tag", "nightly")

    assert clone.check()[0] == 0


def test_in_a_shallow_clone_it_says_how_to_get_the_tags_and_uses_them_once_they_are_here(clone, tmp_path):
    clone.git("tag", "v0.1.0")
    rename_a_field(clone)
    clone.commit("Rename a field")
    shallow = clone.shallow(tmp_path / "shallow")
    without = shallow.check()
    shallow.git("fetch", "--quiet", "--depth", "1", "origin", "tag", "v0.1.0")
    with_tag = shallow.check()

    assert without[0] == 0
    assert "git fetch --tags" in without[1]
    assert with_tag[0] != 0
    assert "version_of_server" in with_tag[1]
