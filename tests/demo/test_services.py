"""Every process is told by its environment, and secrets come to it as files."""

import stat

from demo.envfile import EnvFile
from demo.ports import Ports
from demo.services import SystemOptions, services_of
from service_runtime.private_files import read_private


def services(tmp_path, **options):
    made = SystemOptions(directory=tmp_path, ports=Ports(), **options)
    made.secrets.make()
    return made, {service.name: service for service in services_of(made)}


def test_secrets_travel_as_files_and_never_as_values(tmp_path):
    options, made = services(tmp_path)

    known = {read_private(options.secrets.role_token(role)) for role in ("edge", "control")}
    known |= {read_private(path) for path in (options.secrets.admin_token, options.secrets.vault_key)}
    told = {value for service in made.values() for value in service.environment.values()}
    assert not known & told


def test_a_vault_key_that_somebody_keeps_elsewhere_stays_the_one(tmp_path, monkeypatch):
    options, made = services(tmp_path)
    monkeypatch.setenv("SLUICEGATE_CONTROL_KEY_FILE", "/elsewhere/key")
    _, with_own = services(tmp_path)

    assert made["control_api"].environment["SLUICEGATE_CONTROL_KEY_FILE"] == str(options.secrets.vault_key)
    assert with_own["control_api"].environment["SLUICEGATE_CONTROL_KEY_FILE"] == "/elsewhere/key"


def test_without_the_simulator_the_control_api_keeps_its_real_upstreams(tmp_path):
    _, made = services(tmp_path, simulator=False)

    assert set(made) == {"admission_server", "control_api", "edge_proxy"}
    assert "SLUICEGATE_CONTROL_UPSTREAM_BASE_URL" not in made["control_api"].environment
    assert made["edge_proxy"].environment["SLUICEGATE_EDGE_FORWARD_SIMULATE"] == "false"


def test_the_env_file_is_private_and_survives_awkward_values(tmp_path):
    file = EnvFile(tmp_path / "demo.env")
    file.write({"A": "plain", "B": "it's $HOME"})

    assert (tmp_path / "demo.env").read_text() == "A=plain\nB='it'\"'\"'s $HOME'\n"
    assert stat.S_IMODE((tmp_path / "demo.env").stat().st_mode) == 0o600
