"""Settings of the admission server: environment variables with the prefix `SLUICEGATE_ADMISSION_`."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from service_runtime.settings import ServiceSettings
from service_runtime.tls import TlsFiles

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class AdmissionSettings(ServiceSettings):
    """What the admission server reads at start."""

    model_config = SettingsConfigDict(env_prefix="SLUICEGATE_ADMISSION_")

    host: str = Field("127.0.0.1", description="Address to listen on for gRPC.")
    port: Port = Field(50051, description="Port to listen on for gRPC; 0 takes a free one.")
    metrics_host: str = Field("127.0.0.1", description="Address to serve Prometheus metrics on.")
    metrics_port: Port = Field(9101, description="Port to serve Prometheus metrics on; 0 turns them off.")
    state_dir: Path = Field(
        Path(".data/admission"), description="Folder of the file that remembers the epoch and who had a session."
    )
    tokens_file: Path | None = Field(
        None,
        description="File with lines `<role> <token>`, roles edge, worker, control, reader; required. `#` comments.",
    )
    session_ttl: Seconds = Field(15.0, description="Seconds that a session lives after it was last heard of.")
    heartbeat: Seconds | None = Field(
        None, description="Seconds between heartbeats; at most half of the TTL. Unset: a third of the TTL, 5 s."
    )
    grace: Seconds = Field(2.0, description="Seconds after the TTL until the seats of a silent session are taken back.")
    open_state: bool = Field(
        default=True, description="Whether the state, health and reflection services answer without a token."
    )
    session_leases: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000, description="Most leases that one session may hold."
    )
    drain_timeout: Seconds = Field(5.0, description="Seconds that calls are given to end when the server stops.")
    tls_certificate: Path | None = Field(None, description="PEM file of the server's certificate; unset: no TLS.")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key.")
    tls_authority: Path | None = Field(
        None, description="PEM file of the authority that clients' certificates must be signed by (mutual TLS)."
    )
    tls_probe_certificate: Path | None = Field(
        None,
        description="PEM file of the client certificate that the health probe shows under mutual TLS. Unset: it shows "
        "the server's own, which then has to be of that authority, and good for a client too.",
    )
    tls_probe_key: Path | None = Field(None, description="PEM file of that certificate's key.")

    @property
    def heartbeat_every(self) -> float:
        """Seconds between heartbeats."""
        return self.session_ttl / 3 if self.heartbeat is None else self.heartbeat

    @property
    def tls(self) -> TlsFiles:
        """The TLS files."""
        return TlsFiles(certificate=self.tls_certificate, key=self.tls_key, authority=self.tls_authority)

    @property
    def probe_tls(self) -> TlsFiles:
        """The TLS files of the health probe: it believes the server's certificate, and shows its own or the same."""
        if self.tls_authority is None:
            return TlsFiles(authority=self.tls_certificate)
        own = self.tls_probe_certificate is not None
        return TlsFiles(
            certificate=self.tls_probe_certificate if own else self.tls_certificate,
            key=self.tls_probe_key if own else self.tls_key,
            authority=self.tls_certificate,
        )

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yields what does not go together."""
        if self.tokens_file is None:
            bound = "" if _is_loopback(self.host) else f", least of all on {self.host}, which others can reach"
            needed = "must name a file with lines '<role> <token>', roles edge, worker, control, reader"
            yield "tokens_file", f"{needed}; the server does not run without{bound}"
        if self.heartbeat_every * 2 > self.session_ttl:
            yield "heartbeat", "must be at most half of SLUICEGATE_ADMISSION_SESSION_TTL"
        if self.tls.incomplete() or (self.tls_authority and not self.tls_certificate):
            yield "tls_certificate", "and SLUICEGATE_ADMISSION_TLS_KEY must both be set for TLS"
        if (self.tls_probe_certificate is None) != (self.tls_probe_key is None):
            yield "tls_probe_certificate", "and SLUICEGATE_ADMISSION_TLS_PROBE_KEY go together"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
