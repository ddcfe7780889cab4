"""`.demo/demo.env`: where the running demo is and how to get in, for scripts. There only while the demo is ready."""

import shlex
from pathlib import Path

from service_runtime.private_files import write_private


class EnvFile:
    """A file of `NAME=value` lines that a shell can source."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, variables: dict[str, str]) -> None:
        """Writes the file at once and with mode 0600: it holds the admin token."""
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in variables.items()]
        write_private(self._path, "".join(lines))

    def remove(self) -> None:
        """Removes the file, if it is there."""
        self._path.unlink(missing_ok=True)
