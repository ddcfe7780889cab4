"""Settings come from variables or secret files, and every mistake is told at once."""

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from service_runtime.settings import ServiceSettings, SettingsError


class GateSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="SLUICEGATE_GATE_")

    port: int = Field(default=1, ge=1)
    width: float = 2.0
    token: SecretStr = SecretStr("")


def test_variables_fill_the_settings(monkeypatch):
    monkeypatch.setenv("SLUICEGATE_GATE_PORT", "81")

    assert GateSettings.from_environment().port == 81


def test_the_environment_of_a_child_is_read_in_place_of_ones_own(monkeypatch):
    monkeypatch.setenv("SLUICEGATE_GATE_PORT", "81")

    assert GateSettings.of({"SLUICEGATE_GATE_PORT": "82", "SLUICEGATE_GATE_WIDTH": ""}).port == 82
    with pytest.raises(SettingsError, match="SLUICEGATE_GATE_PORT"):
        GateSettings.of({"SLUICEGATE_GATE_PORT": "none"})


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("SLUICEGATE_GATE_PORT", "")

    assert GateSettings.from_environment().port == 1


def test_a_secret_may_come_from_a_file_without_its_last_newline(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("open sesame\n")
    monkeypatch.setenv("SLUICEGATE_GATE_TOKEN_FILE", str(tmp_path / "token"))

    assert GateSettings.from_environment().token.get_secret_value() == "open sesame"


def test_the_variable_wins_over_the_file(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("from the file")
    monkeypatch.setenv("SLUICEGATE_GATE_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("SLUICEGATE_GATE_TOKEN", "from the variable")

    assert GateSettings.from_environment().token.get_secret_value() == "from the variable"


def test_only_secrets_are_read_from_files(monkeypatch, tmp_path):
    (tmp_path / "port").write_text("99")
    monkeypatch.setenv("SLUICEGATE_GATE_PORT_FILE", str(tmp_path / "port"))

    assert GateSettings.from_environment().port == 1


def test_every_mistake_is_told_at_once_by_the_name_of_its_variable(monkeypatch):
    monkeypatch.setenv("SLUICEGATE_GATE_PORT", "0")
    monkeypatch.setenv("SLUICEGATE_GATE_WIDTH", "wide")

    with pytest.raises(SettingsError) as raised:
        GateSettings.from_environment()

    assert sorted(problem.split(":")[0] for problem in raised.value.problems) == [
        "SLUICEGATE_GATE_PORT",
        "SLUICEGATE_GATE_WIDTH",
    ]


def test_a_secret_file_that_cannot_be_read_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SLUICEGATE_GATE_TOKEN_FILE", str(tmp_path / "missing"))

    with pytest.raises(SettingsError, match="SLUICEGATE_GATE_TOKEN_FILE: cannot read"):
        GateSettings.from_environment()


def test_secrets_do_not_show_in_the_settings_or_in_their_errors(monkeypatch):
    monkeypatch.setenv("SLUICEGATE_GATE_TOKEN", "open sesame")
    settings = GateSettings.from_environment()
    monkeypatch.setenv("SLUICEGATE_GATE_PORT", "not-a-port-but-secret")
    with pytest.raises(SettingsError) as raised:
        GateSettings.from_environment()

    assert "open sesame" not in repr(settings)
    assert "not-a-port-but-secret" not in str(raised.value)
