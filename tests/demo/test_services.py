"""Secrets are made once and kept private; every process is told by its environment."""

import stat

from demo.envfile import EnvFile
from demo.ports import Ports
from demo.services import Secrets, SystemOptions, services_of


def test_secrets_are_made_once_and_only_their_owner_can_read_them(tmp_path):
    first = Secrets.load_or_make(tmp_path)

    assert Secrets.load_or_make(tmp_path) == first
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_the_tokens_file_gives_each_role_its_own_token(tmp_path):
    known = Secrets.load_or_make(tmp_path)

    lines = dict(line.split() for line in Secrets.tokens_file(tmp_path).read_text().splitlines())
    assert lines == known.roles
    assert len(set(lines.values())) == 4


def test_secrets_do_not_show_in_repr(tmp_path):
    known = Secrets.load_or_make(tmp_path)
    services = services_of(SystemOptions(directory=tmp_path, ports=Ports()), known)

    shown = repr(known) + repr(services)
    assert known.admin not in shown
    assert not any(token in shown for token in known.roles.values())


def test_without_the_simulator_the_control_api_keeps_its_real_upstreams(tmp_path):
    options = SystemOptions(directory=tmp_path, ports=Ports(), simulator=False)
    services = {service.name: service for service in services_of(options, Secrets.load_or_make(tmp_path))}

    assert set(services) == {"admission_server", "control_api", "edge_proxy"}
    assert "SLUICEGATE_CONTROL_UPSTREAM_BASE_URL" not in services["control_api"].environment
    assert services["edge_proxy"].environment["SLUICEGATE_EDGE_FORWARD_SIMULATE"] == "false"


def test_the_env_file_is_private_and_survives_awkward_values(tmp_path):
    file = EnvFile(tmp_path / "demo.env")
    file.write({"A": "plain", "B": "it's $HOME"})

    assert (tmp_path / "demo.env").read_text() == "A=plain\nB='it'\"'\"'s $HOME'\n"
    assert stat.S_IMODE((tmp_path / "demo.env").stat().st_mode) == 0o600
