"""Writes docs/configuration.md from the settings of the processes: `make docs`. A test keeps the page true."""

from pathlib import Path

from admission_server.settings import AdmissionSettings
from control_api.settings import ControlSettings
from edge_proxy.settings import EdgeSettings
from service_runtime.settings_page import settings_page

INTRODUCTION = """# Configuration

Every process is configured by environment variables and nothing else. An empty variable counts as not set. All mistakes
are told at start, at once, each with the name of its variable. Limits and waits can be changed while it runs
(`PATCH /api/limits`); for every value that nobody has changed so, the environment counts, at each start.

This page is made from the code by `make docs`.
"""
SECTIONS = [
    ("Admission server", AdmissionSettings),
    ("Edge proxy", EdgeSettings),
    ("Control API", ControlSettings),
]
PAGE = Path(__file__).with_name("configuration.md")


def page() -> str:
    """Returns the page as it should be."""
    return settings_page(INTRODUCTION, SECTIONS)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
