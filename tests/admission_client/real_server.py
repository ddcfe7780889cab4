"""The real admission server in this process, on a real socket, with a look into its ledger."""

import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from admission_client.policy import Policy
from admission_client.sync import SyncClient
from admission_server.server import AdmissionServer
from admission_server.settings import AdmissionSettings


class RunningServer:
    """A server that runs, and the tokens for it."""

    def __init__(self, server: AdmissionServer, edge_token: str, control_token: str) -> None:
        self._server = server
        self.edge_token = edge_token
        self.control_token = control_token

    @property
    def port(self) -> int:
        """Its port."""
        return self._server.port

    @property
    def target(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self.port}"

    @property
    def waiting(self) -> int:
        """How many acquires wait."""
        return self._server.ledger.waiting

    def held(self, resource: str) -> int:
        """Returns how many seats of a resource are taken."""
        known = self._server.ledger.catalogue.resources.get(resource)
        return len(known.leases) if known is not None else 0

    @property
    def sessions(self) -> list[str]:
        """Ids of the sessions that are open."""
        return list(self._server.ledger.sessions)

    @contextlib.asynccontextmanager
    async def controlled_by(self, policy: Policy, *, term: int = 1) -> AsyncIterator[SyncClient]:
        """Puts a policy in force, and keeps its controller connected while the block lasts."""

        async def ignore(_signals: object) -> None:
            pass

        async with SyncClient(self.target, self.control_token, "control-1", term, on_signals=ignore) as sync:
            await sync.update(policy)
            yield sync


@contextlib.asynccontextmanager
async def running_server(
    *, port: int = 0, state_dir: Path | None = None, session_ttl: float = 15.0, heartbeat: float = 5.0
) -> AsyncIterator[RunningServer]:
    """Runs a server while the block lasts. Without a `state_dir` it remembers nothing."""
    with tempfile.TemporaryDirectory() as folder:
        edge_token, control_token = secrets.token_hex(16), secrets.token_hex(16)
        tokens = Path(folder) / "tokens"
        tokens.write_text(f"edge {edge_token}\ncontrol {control_token}\n", encoding="utf-8")
        settings = AdmissionSettings(
            port=port,
            metrics_port=0,
            tokens_file=tokens,
            state_dir=state_dir or Path(folder) / "state",
            session_ttl=session_ttl,
            heartbeat=heartbeat,
            drain_timeout=0.2,
        )
        server = AdmissionServer(settings)
        await server.start()
        try:
            yield RunningServer(server, edge_token, control_token)
        finally:
            await server.stop()
