"""A page of documentation is made from settings, and a setting without a description is an error."""

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from service_runtime.settings import ServiceSettings
from service_runtime.settings_page import settings_section


class GateSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="SLUICEGATE_GATE_")

    open: bool = True
    """Whether it is open."""
    token: SecretStr = Field(default=SecretStr("never shown"), description="Who may pass.")
    target: str = Field(description="Where to | go.")


def test_each_variable_has_a_row_with_its_default_and_meaning():
    section = settings_section("Gate", GateSettings)

    assert "| `SLUICEGATE_GATE_OPEN` | `true` | Whether it is open. |" in section
    assert "| `SLUICEGATE_GATE_TARGET` | required | Where to \\| go. |" in section


def test_a_secret_shows_no_default_and_says_that_a_file_will_do():
    section = settings_section("Gate", GateSettings)

    assert "never shown" not in section
    assert "`SLUICEGATE_GATE_TOKEN_FILE` may name a file" in section


def test_a_variable_without_a_description_is_an_error():
    class Silent(ServiceSettings):
        depth: int = 3

    with pytest.raises(ValueError, match="DEPTH has no description"):
        settings_section("Silent", Silent)
