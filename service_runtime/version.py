"""The version of this installation, from the package's own metadata."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """Returns the version, such as "0.1.0"; "0+unknown" when the code runs from a folder that was never installed."""
    try:
        return version("sluicegate")
    except PackageNotFoundError:
        return "0+unknown"
