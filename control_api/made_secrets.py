"""Secrets that are made at the first start and kept in a file: the admin token and the key of the vault."""

from collections.abc import Callable
from pathlib import Path

from service_runtime.private_files import read_private, write_private
from service_runtime.process import StartupError


def read_or_make(path: Path, make: Callable[[], str]) -> tuple[str, bool]:
    """Returns the secret in `path` and whether it was made just now. Raises `StartupError`."""
    made = False
    try:
        if not path.exists():
            write_private(path, make() + "\n")
            made = True
        secret = read_private(path)
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"cannot use {path}: {error}") from None
    if not secret:
        raise StartupError(f"{path} is empty: remove it, or put the secret into it")
    return secret, made
