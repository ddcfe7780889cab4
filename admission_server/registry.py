"""Remembers who, not what: the epoch and the sessions that are open, in one small file that survives a crash.

The file is replaced as a whole and fsynced, directory included, before anybody is told that a session is open. Leases
are not in it: holders bring those back themselves.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO

Aside = Callable[[Callable[[], None]], Awaitable[None]]
MINUTES_2020 = 1_577_836_800 // 60


class RegistryError(Exception):
    """The state directory cannot be used."""


class Registry:
    """The file `sessions.json` in the state directory. One process at a time: the directory is locked."""

    def __init__(self, directory: Path, lock: IO[str], aside: Aside) -> None:
        self._aside = aside
        self._path = directory / "sessions.json"
        self._lock = lock
        self._saving = asyncio.Lock()
        self.epoch = 0
        self.remembered: dict[str, str] = {}

    @classmethod
    def open(cls, directory: Path, *, aside: Aside = asyncio.to_thread) -> "Registry":
        """Locks the directory, reads who was there, and begins a new epoch. Raises `RegistryError`.

        `aside` runs what waits for the disk, so that nobody else has to.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = (directory / "lock").open("w", encoding="utf-8")
        except OSError as error:
            raise RegistryError(f"cannot use {directory}: {error}") from None
        registry = cls(directory, lock, aside)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            registry._begin()
        except BlockingIOError:
            registry.close()
            raise RegistryError(f"{directory} is in use by another admission server") from None
        except OSError as error:
            registry.close()
            raise RegistryError(f"cannot use {directory}: {error}") from None
        except RegistryError:
            registry.close()
            raise
        return registry

    async def save(self, sessions: Callable[[], Mapping[str, str]]) -> None:
        """Writes who is there now; returns when it is on disk. Callers who come during a write share the next one."""
        async with self._saving:
            current = dict(sessions())
            if current != self.remembered:
                await self._aside(partial(self._write, current))
                self.remembered = current

    def close(self) -> None:
        """Lets another process have the directory."""
        with contextlib.suppress(OSError):
            self._lock.close()

    def _begin(self) -> None:
        stored = {}
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            self.epoch = int(stored["epoch"]) + 1
            self.remembered = {str(s): str(i) for s, i in stored["sessions"].items()}
        except FileNotFoundError:
            # A directory that was lost must not bring old lease ids back: minutes grow faster than anybody restarts.
            self.epoch = int(time.time() // 60) - MINUTES_2020
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RegistryError(f"{self._path} is damaged ({error}): remove it to begin anew") from None
        self._write(self.remembered)

    def _write(self, sessions: Mapping[str, str]) -> None:
        new = self._path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump({"epoch": self.epoch, "sessions": dict(sessions)}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
