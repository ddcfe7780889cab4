"""The demo runs the grpcurl that `make tools` installed, else the one of the machine; what goes wrong is told."""

import pytest

from demo.grpcurl import find_grpcurl, show_call
from demo.reflection import NoAnswer


def script(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    path.chmod(0o755)
    return path


def test_the_one_of_make_tools_is_taken_before_the_one_of_the_machine(tmp_path, monkeypatch):
    ours, machines = script(tmp_path / "tools" / "grpcurl"), script(tmp_path / "bin" / "grpcurl")
    monkeypatch.setenv("PATH", str(machines.parent))

    assert find_grpcurl(installed=ours) == str(ours)
    assert find_grpcurl(installed=tmp_path / "nowhere") == str(machines)


def test_there_may_be_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_grpcurl(installed=tmp_path / "nowhere") is None


async def test_the_command_line_that_is_shown_is_the_one_that_runs(tmp_path):
    grpcurl = script(tmp_path / "grpcurl", 'echo "$@"')

    shown = await show_call("127.0.0.1:1", "a.B/C", grpcurl=str(grpcurl))
    assert shown == "$ grpcurl -plaintext 127.0.0.1:1 a.B/C\n-plaintext 127.0.0.1:1 a.B/C"


async def test_a_grpcurl_that_fails_is_told_with_its_own_words(tmp_path):
    grpcurl = script(tmp_path / "grpcurl", "echo 'no such host' >&2", "exit 69")

    with pytest.raises(NoAnswer, match="no such host"):
        await show_call("127.0.0.1:1", "a.B/C", grpcurl=str(grpcurl))
