"""Turns settings classes into a page of documentation, so that a variable without a description cannot exist.

Pure: classes in, Markdown out. `docs/make_configuration.py` names the classes.
"""

from collections.abc import Iterable

from pydantic.fields import FieldInfo

from service_runtime.settings import ServiceSettings, is_secret, variable_of


def settings_section(title: str, settings: type[ServiceSettings]) -> str:
    """Returns one Markdown section with a row for each variable. Raises `ValueError` for one without a description."""
    rows = (_row(settings, name, field) for name, field in settings.model_fields.items())
    return "\n".join([f"## {title}", "", "| variable | default | meaning |", "|---|---|---|", *rows, ""])


def settings_page(introduction: str, sections: Iterable[tuple[str, type[ServiceSettings]]]) -> str:
    """Returns the whole page."""
    return "\n".join([introduction, *(settings_section(title, settings) for title, settings in sections)])


def _row(settings: type[ServiceSettings], name: str, field: FieldInfo) -> str:
    variable = variable_of(settings, (name,))
    if not field.description:
        raise ValueError(f"{variable} has no description")
    meaning = " ".join(field.description.split()).replace("|", "\\|")
    if is_secret(field):
        meaning += f" Secret; `{variable}_FILE` may name a file instead."
    return f"| `{variable}` | {_default(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if is_secret(field) or field.default_factory is not None or field.default in (None, ""):
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
