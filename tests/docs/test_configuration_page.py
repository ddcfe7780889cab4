"""docs/configuration.md says what the code does."""

from docs import make_configuration


def test_the_page_is_as_the_settings_are():
    assert make_configuration.PAGE.read_text(encoding="utf-8") == make_configuration.page(), "run `make docs`"
