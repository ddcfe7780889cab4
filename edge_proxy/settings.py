"""Settings of the edge, all from the environment: `SLUICEGATE_EDGE_…`. Times are seconds, sizes are bytes."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from service_runtime.settings import ServiceSettings
from service_runtime.tls import TlsFiles

MIB = 1024 * 1024


class EdgeSettings(ServiceSettings):
    """What an operator may set. The defaults suit one machine; a time limit that strikes gives all seats back."""

    model_config = SettingsConfigDict(env_prefix="SLUICEGATE_EDGE_")

    host: str = "127.0.0.1"
    """Address to listen on for clients."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on for clients; 0 takes a free one."""
    workers: int = Field(default=1, ge=1, le=128)
    """Processes that share the port, each with a session of its own."""
    instance: str = Field(default_factory=socket.gethostname)
    """Name of this edge; a worker's session is `<instance>/<slot>`."""
    metrics_host: str = "127.0.0.1"
    """Address to serve Prometheus metrics on."""
    metrics_port: int = Field(default=9102, ge=0, le=65535)
    """Port to serve Prometheus metrics on, summed over workers; 0 turns them off."""

    admission_target: str = "127.0.0.1:50051"
    """Address of the admission server."""
    admission_token: SecretStr = SecretStr("")
    """Role token of the role `edge`."""
    admission_tls_authority: Path | None = None
    """CA certificate (PEM) that the admission server must prove itself with; turns TLS on."""
    admission_tls_certificate: Path | None = None
    """Client certificate (PEM) for mutual TLS."""
    admission_tls_key: Path | None = None
    """Key of the client certificate."""
    control_url: str = ""
    """Where usage questions are answered. Without it those routes are 404."""

    keyless: Literal["", "loopback"] = ""
    """`loopback`: clients on this machine need no key. Never right behind a proxy, which makes everybody local."""
    allowed_origins: str = ""
    """Web origins that may open WebSockets, with commas between them. No other page may: Codex and SDKs send none."""
    forward_simulate: bool = False
    """Whether `x-simulate` may reach the upstream: for demo, tests and benchmarks."""

    body_budget: int = Field(default=512 * MIB, ge=MIB)
    """Bytes of request bodies that may be in memory at once, over all requests and workers."""
    head_limit: int = Field(default=64 * 1024, ge=1024)
    """Largest request line and headers together."""
    frame_limit: int = Field(default=16 * MIB, ge=1024)
    """Largest WebSocket frame, both ways."""
    lines_per_socket: int = Field(default=8, ge=1)
    """Most lines (`stream_id`) of one WebSocket; for one more, the line that was idle longest is ended."""
    turns_per_line: int = Field(default=8, ge=1)
    """Most turns that wait in one line of a WebSocket."""

    connect_timeout: float = Field(default=8.0, gt=0)
    """Seconds to connect to an upstream."""
    handshake_timeout: float = Field(default=10.0, gt=0)
    """Seconds for the upstream's WebSocket handshake."""
    headers_timeout: float = Field(default=60.0, gt=0)
    """Seconds until the upstream must have begun to answer."""
    silence_timeout: float = Field(default=300.0, gt=0)
    """Seconds of silence within an upstream's stream."""
    compact_timeout: float = Field(default=180.0, gt=0)
    """Seconds for a whole compaction."""
    stream_timeout: float = Field(default=7200.0, gt=0)
    """Seconds for a whole stream."""
    client_write_timeout: float = Field(default=60.0, gt=0)
    """Seconds that a client may leave its answer unread."""
    upstream_write_timeout: float = Field(default=60.0, gt=0)
    """Seconds that an upstream may leave a frame unread."""
    head_timeout: float = Field(default=20.0, gt=0)
    """Seconds for the headers of a request."""
    body_timeout: float = Field(default=60.0, gt=0)
    """Seconds for a whole request body."""
    body_progress_timeout: float = Field(default=20.0, gt=0)
    """Seconds without a byte of a request body."""
    keepalive_interval: float = Field(default=10.0, gt=0)
    """Seconds of silence after which the client is told that we are still there."""
    idle_timeout: float = Field(default=120.0, gt=0)
    """A WebSocket without a turn and without client traffic is closed after this time."""
    drain_timeout: float = Field(default=30.0, ge=0)
    """Seconds that turns in flight are given to end when the edge stops."""

    models_client_version: str = Field(default="0.169.0", pattern=r"^\d+\.\d+\.\d+$")
    """The Codex version to ask the catalogue for, on behalf of clients that do not say theirs."""
    retry_budget: int = Field(default=100, ge=0)
    """Retries a minute, over all requests of a worker."""

    @property
    def admission_tls(self) -> TlsFiles:
        """The TLS files of the way to the admission server."""
        return TlsFiles(
            certificate=self.admission_tls_certificate,
            key=self.admission_tls_key,
            authority=self.admission_tls_authority,
        )

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yields what does not go together. A limit within a limit must be able to strike."""
        for inner, outer in _WITHIN:
            if getattr(self, inner) > getattr(self, outer):
                yield inner, f"must not be more than SLUICEGATE_EDGE_{outer.upper()}"
        if self.frame_limit > self.body_budget // self.workers:
            yield "body_budget", "must have room for one frame of SLUICEGATE_EDGE_FRAME_LIMIT in every worker"
        if self.admission_tls.incomplete():
            yield "admission_tls_certificate", "and SLUICEGATE_EDGE_ADMISSION_TLS_KEY go together"


_WITHIN = (
    ("body_progress_timeout", "body_timeout"),
    ("connect_timeout", "handshake_timeout"),
    ("keepalive_interval", "silence_timeout"),
    ("silence_timeout", "stream_timeout"),
    ("headers_timeout", "stream_timeout"),
)
