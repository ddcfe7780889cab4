"""The real Codex CLI as a user would set it up, with a home of its own, quiet and on loopback only."""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_QUIET = """
[analytics]
enabled = false
[feedback]
enabled = false
[otel]
exporter = "none"
metrics_exporter = "none"
[features]
plugins = false
apps = false
remote_plugin = false
"""
_KEY_VARIABLE = "SLUICEGATE_TEST_KEY"
FINISHES_WITHIN = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where the CLI finds us, and how it says who it is.

    With `auth_json` it is signed in with ChatGPT and its own token goes into `Authorization`, so our key goes into a
    header of its own. The two origins differ on purpose: with the same one the CLI would go around us.
    """

    port: int
    key: str = field(repr=False)
    websockets: bool = False
    auth_json: dict[str, Any] | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict)

    def as_toml(self) -> str:
        """Returns the provider's part of `config.toml`."""
        headers = dict(self.headers)
        if self.auth_json is None:
            where, who = "v1", f'env_key = "{_KEY_VARIABLE}"'
        else:
            where, who = "backend-api/codex", "requires_openai_auth = true"
            headers["x-sluicegate-key"] = self.key
        shown = ", ".join(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in headers.items())
        return f"""
[model_providers.sluicegate]
name = "OpenAI"
base_url = "http://127.0.0.1:{self.port}/{where}"
wire_api = "responses"
supports_websockets = {str(self.websockets).lower()}
http_headers = {{ {shown} }}
{who}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run of the CLI that is over."""

    status: int
    stdout: str
    stderr: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a run with `--json`."""
        return [json.loads(line) for line in self.stdout.splitlines() if line.startswith("{")]

    @property
    def messages(self) -> list[str]:
        """What the agent said, in a run with `--json`."""
        items = [event["item"] for event in self.events if event["type"] == "item.completed"]
        return [item["text"] for item in items if item["type"] == "agent_message"]

    @property
    def thread_id(self) -> str:
        """The thread of a run with `--json`."""
        return next(str(event["thread_id"]) for event in self.events if event["type"] == "thread.started")


class Codex:
    """An installation of the CLI with its own home and workspace."""

    def __init__(self, binary: str, directory: Path, provider: Provider, *, settings: str = "") -> None:
        self._binary = binary
        self._provider = provider
        self._home = directory / "home"
        self._workspace = directory / "workspace"
        for folder in (self._home, self._workspace):
            folder.mkdir(parents=True, exist_ok=True)
        self._configure(settings)

    async def say(self, prompt: str, *, resume: str | None = None) -> Finished:
        """Runs one turn to its end and returns what came of it."""
        async with self.started(prompt, resume=resume) as process:
            return await self.finish(process)

    @asynccontextmanager
    async def started(self, prompt: str, *, resume: str | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
        """Starts one turn; leaving the block ends it."""
        arguments = ["exec", *(["resume"] if resume else []), "--skip-git-repo-check", "--json"]
        arguments.append("--dangerously-bypass-approvals-and-sandbox")
        async with self._started(*arguments, *([resume] if resume else []), prompt) as process:
            yield process

    async def finish(self, process: asyncio.subprocess.Process) -> Finished:
        """Waits for the end of a run."""
        async with asyncio.timeout(FINISHES_WITHIN):
            stdout, stderr = await process.communicate()
        return Finished(
            status=process.returncode or 0,
            stdout=stdout.decode(errors="replace"),
            stderr=stderr.decode(errors="replace"),
        )

    async def doctor(self) -> dict[str, Any]:
        """Lets the CLI examine its own set-up."""
        async with self._started("doctor", "--json") as process:
            report: dict[str, Any] = json.loads((await self.finish(process)).stdout)
        return report

    @asynccontextmanager
    async def app_server(self) -> AsyncIterator["AppServer"]:
        """Starts the server that editors talk to."""
        async with self._started("app-server", stdin=asyncio.subprocess.PIPE) as process:
            server = AppServer(process)
            await server.call("initialize", clientInfo={"name": "tests", "version": "1"})
            yield server

    @asynccontextmanager
    async def _started(
        self, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await self._launch(*arguments, stdin=stdin)
        try:
            yield process
        finally:
            if process.returncode is None:
                # The command is a wrapper around the binary, and both hold the pipes: end the whole session.
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    async def _launch(self, *arguments: str, stdin: int) -> asyncio.subprocess.Process:
        inherited = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return await asyncio.create_subprocess_exec(
            self._binary,
            *arguments,
            cwd=self._workspace,
            env={
                **inherited,
                "HOME": str(self._home),
                "CODEX_HOME": str(self._home),
                _KEY_VARIABLE: self._provider.key,
                # Nobody but the edge is there: a refresh of its own would leave the machine.
                "CODEX_REFRESH_TOKEN_URL_OVERRIDE": "http://127.0.0.1:9/oauth/token",
            },
            start_new_session=True,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    def _configure(self, settings: str) -> None:
        top = [
            'model_provider = "sluicegate"',
            "check_for_update_on_startup = false",
            f'chatgpt_base_url = "http://localhost:{self._provider.port}/backend-api"',
        ]
        if "model =" not in settings:
            top.append('model = "gpt-5.5"')
        text = "\n".join([*top, settings, self._provider.as_toml(), _QUIET])
        (self._home / "config.toml").write_text(text, encoding="utf-8")
        if self._provider.auth_json is not None:
            path = self._home / "auth.json"
            path.touch(mode=0o600)
            path.write_text(json.dumps(self._provider.auth_json), encoding="utf-8")


class AppServer:
    """`codex app-server`: JSON-RPC, a line a message."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method and returns its result; notifications that come meanwhile are passed over."""
        number = next(self._numbers)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"id": number, "method": method, "params": params}).encode() + b"\n")
        async with asyncio.timeout(FINISHES_WITHIN):
            while True:
                message = json.loads(await self._process.stdout.readline())
                if message.get("id") == number:
                    result: dict[str, Any] = message["result"]
                    return result
