"""Settings by environment variable. Each service has a class of its own below this one and reads it once, at start.

A secret `SLUICEGATE_X` may come as `SLUICEGATE_X_FILE`, the path of a file whose content it is (without the newline at
its end). All mistakes are told at once, each with the name of its variable and never with a secret's value.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class SettingsError(Exception):
    """The environment cannot be used. The message names every variable that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ServiceSettings(BaseSettings):
    """Base of the services' settings: reads the environment, and files for secrets."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,  # the sentence below a setting is its description in docs/configuration.md
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Takes arguments first, then variables, then the files that `…_FILE` variables name."""
        return (init_settings, env_settings, _SecretFiles(settings_cls, os.environ))

    @classmethod
    def from_environment(cls) -> Self:
        """Reads the environment. Raises `SettingsError` with every mistake in it."""
        return cls._made()

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Reads the environment of a process that inherits from this one. Raises like `from_environment`."""
        variables = {name: environment.get(variable_of(cls, (name,)), "") for name in cls.model_fields}
        return cls._made(**{name: value for name, value in variables.items() if value})

    @classmethod
    def _made(cls, **values: Any) -> Self:
        try:
            settings = cls(**values)
        except ValidationError as error:
            problems = [f"{variable_of(cls, item['loc'])}: {item['msg']}" for item in error.errors()]
            raise SettingsError(problems) from None
        problems = [f"{variable_of(cls, (name,))}: {problem}" for name, problem in settings.contradictions()]
        if problems:
            raise SettingsError(problems)
        return settings

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yields settings that do not go together: the one to name, and what is wrong with it."""
        yield from ()


def variable_of(settings: type[ServiceSettings], location: tuple[int | str, ...]) -> str:
    """Returns the environment variable behind a validation error's location."""
    if not location:
        return settings.__name__
    return f"{settings.model_config.get('env_prefix', '')}{location[0]}".upper()


def is_secret(field: FieldInfo) -> bool:
    """Returns whether a field holds a secret, and so may come from a file."""
    return "SecretStr" in str(field.annotation) or field.annotation is SecretStr


class _SecretFiles(PydanticBaseSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], environment: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._environment = environment

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        prefix = self.config.get("env_prefix", "")
        path = self._environment.get(f"{prefix}{field_name}_FILE".upper()) if is_secret(field) else None
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n"), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError([f"{prefix}{field_name}_FILE".upper() + f": cannot read {path}: {error}"]) from None

    def __call__(self) -> dict[str, Any]:
        values = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value is not None:
                values[key] = value
        return values
