"""Runs the processes of one system: starts them, knows when they are ready, restarts what dies, stops them in order.

Every process has a session of its own, so that Ctrl-C reaches only us and each of them is stopped in order: first the
edge, so that turns finish, last what the others need.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from admission_server.probe import check_server
from admission_server.settings import AdmissionSettings
from demo.endpoints import Endpoints
from demo.services import Service, SystemOptions, command_of, services_of
from service_runtime.probe import Unhealthy
from service_runtime.settings import SettingsError

READY_WITHIN = 60.0
STOPPED_WITHIN = 40.0
RESTART_AFTER = 0.2
RESTART_AT_LATEST_AFTER = 1.0


class NotReady(Exception):
    """A process did not become ready. The message holds the end of its log."""


class Stack:
    """The processes of one system, as an async context manager: inside the block they are started and ready."""

    def __init__(
        self,
        options: SystemOptions,
        *,
        restart: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.options = options
        self.ports = options.ports
        self.endpoints = Endpoints.on_loopback(options.ports)
        self.secrets = options.secrets
        self.services = {service.name: service for service in services_of(options)}
        self._restart = restart
        self._say = say
        self._children: dict[str, _Child] = {}

    async def __aenter__(self) -> Self:
        for note in self.secrets.make():
            self._say(note)
        try:
            for name in self.services:
                await self.start(name)
            for name in self.services:
                await self.wait_ready(name)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, name: str) -> None:
        """Starts one process; with `restart`, it is started again whenever it dies."""
        child = _Child(self.services[name], self.log_path(name), restart=self._restart, say=self._say)
        self._children[name] = child
        await child.start()

    async def wait_ready(self, name: str, *, within: float = READY_WITHIN) -> None:
        """Waits until a process answers its health check. Raises `NotReady` with the end of its log."""
        service = self.services[name]
        child = self._children[name]
        try:
            async with asyncio.timeout(within):
                while not await _answers(service):
                    if child.ended and not self._restart:
                        raise NotReady(f"{name} ended before it was ready:\n{self.log_tail(name)}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise NotReady(f"{name} is not ready after {within:.0f} s:\n{self.log_tail(name)}") from None

    async def stop(self) -> None:
        """Stops all processes with SIGTERM, the last started first, and waits for them."""
        for name in reversed(list(self._children)):
            await self.terminate(name)

    async def terminate(self, name: str) -> int | None:
        """Stops one process in order and returns its exit status."""
        child = self._children.pop(name, None)
        return await child.stop(signal.SIGTERM) if child else None

    async def kill(self, name: str) -> None:
        """Kills one process and all it has started, as a crash would; it stays dead until it is started again."""
        child = self._children.pop(name)
        await child.stop(signal.SIGKILL)

    def pid(self, name: str) -> int:
        """Returns the process id of a running process."""
        return self._children[name].pid

    def log_path(self, name: str) -> Path:
        """Returns where the output of a process goes."""
        return self.options.directory / "logs" / f"{name}.log"

    def log_tail(self, name: str, *, lines: int = 15) -> str:
        """Returns the last lines of a process's output."""
        try:
            return "\n".join(self.log_path(name).read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no output)"


class _Child:
    """One process that is kept running until it is told to stop."""

    def __init__(self, service: Service, log_path: Path, *, restart: bool, say: Callable[[str], None]) -> None:
        self._service = service
        self._log_path = log_path
        self._restart = restart
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self._service.name} was never started")
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.returncode is not None

    async def start(self) -> None:
        await self._launch()
        if self._restart:
            self._watcher = asyncio.create_task(self._keep_running())

    async def stop(self, number: signal.Signals) -> int | None:
        self._stopping = True
        if self._watcher:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        if self._process is None:
            return None
        self._signal(number)
        try:
            async with asyncio.timeout(STOPPED_WITHIN):
                return await self._process.wait()
        except TimeoutError:
            self._say(f"{self._service.name} does not stop; killing it")
            self._signal(signal.SIGKILL)
            return await self._process.wait()

    async def _launch(self) -> None:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command_of(self._service),
                env=self._service.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def _keep_running(self) -> None:
        delay = RESTART_AFTER
        while self._process is not None and not self._stopping:
            started = asyncio.get_running_loop().time()
            status = await self._process.wait()
            lived = asyncio.get_running_loop().time() - started
            delay = RESTART_AFTER if lived > 10 else min(delay * 2, RESTART_AT_LATEST_AFTER)
            self._say(f"{self._service.name} ended with status {status}; starting it again (log: {self._log_path})")
            await asyncio.sleep(delay)
            await self._launch()

    def _signal(self, number: signal.Signals) -> None:
        # SIGKILL goes to the whole session: a crash of the machine would not spare workers either.
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self.pid, number)
            elif not self.ended:
                os.kill(self.pid, number)


async def _answers(service: Service) -> bool:
    if service.probed_by_settings:
        return await asyncio.to_thread(_serving, service)
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
            return (await client.get(service.health_url)).status_code == 200
    except httpx.HTTPError:
        return False


def _serving(service: Service) -> bool:
    try:
        check_server(AdmissionSettings.of(service.environment))
    except (SettingsError, Unhealthy):
        return False
    return True
