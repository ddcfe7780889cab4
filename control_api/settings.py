"""Settings of the control API: environment variables with the prefix `SLUICEGATE_CONTROL_`.

The limit seeds hold until somebody changes the limit through the API; a variable that is not set leaves the built-in
default in force, which is why every seed may be None.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from service_runtime.addresses import PrivateHosts
from service_runtime.settings import ServiceSettings
from service_runtime.tls import TlsFiles

Limit = Annotated[int, Field(ge=0, le=1_000_000)]


class ControlSettings(ServiceSettings):
    """What the operator says at start."""

    model_config = SettingsConfigDict(env_prefix="SLUICEGATE_CONTROL_")

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8081, ge=0, le=65535)
    """Port of the REST API; 0 picks a free one."""
    data_dir: Path = Path(".data/control")
    """Where the database lies, and the key of the vault and the admin token unless they are named elsewhere."""
    database_url: SecretStr | None = None
    """SQLAlchemy URL, which may hold a password; without it a SQLite file in the data directory."""
    key_file: Path | None = None
    """File with the keys of the vault, one a line; made when there is none and no token is stored yet. Default:
    `vault.key` in the data directory."""
    vault_key: SecretStr | None = None
    """The keys themselves, in place of the file."""
    admin_token: SecretStr | None = None
    """Bearer token of the REST API; without it one is made in `admin-token` in the data directory."""
    instance: str | None = None
    """Name of this controller in logs and sessions; default: the host name."""

    admission_target: str = "127.0.0.1:50051"
    """Address of the admission server."""
    admission_token: SecretStr
    """Role token `control` of the admission server."""
    admission_tls_authority: Path | None = None
    """CA certificate (PEM) that the admission server must prove itself with; turns TLS on."""
    admission_tls_certificate: Path | None = None
    """Client certificate (PEM) for mutual TLS."""
    admission_tls_key: Path | None = None
    """Key of the client certificate."""

    upstream_base_url: str = "https://chatgpt.com/backend-api"
    """Backend of `chatgpt` accounts."""
    auth_base_url: str = "https://auth.openai.com"
    """Auth server that signs accounts in and refreshes their tokens."""
    allow_private_upstreams: str = "false"
    """Upstreams and auth servers that may be at private, loopback or link-local addresses, and those with plain http:
    host names with commas between them, or `true` for all."""
    metrics_host: str = "127.0.0.1"
    """Address of the metrics."""
    metrics_port: int = Field(default=9103, ge=0, le=65535)
    """Port of the metrics; 0 picks a free one."""
    login_callback_port: int = Field(default=1455, ge=0, le=65535)
    """Port on this machine that a browser login returns to. The auth server knows 1455 only."""
    usage_interval: float = Field(default=60.0, gt=0)
    """Seconds between two usage polls of one account."""
    lock_ttl: float = Field(default=15.0, gt=0)
    """Seconds after which a silent controller's lock on the database may be taken over."""

    lane_proxy_http: Limit | None = None
    """Seats of the lane for HTTP turns (200)."""
    lane_proxy_websocket: Limit | None = None
    """Seats of the lane for WebSockets (200)."""
    lane_proxy_compact: Limit | None = None
    """Seats of the lane for compactions (16)."""
    lane_dashboard: Limit | None = None
    """Seats of the lane for this API and usage queries (50)."""
    stage_token_refresh: Limit | None = None
    """Token refreshes at once (32)."""
    stage_upstream_websocket_connect: Limit | None = None
    """Upstream WebSocket handshakes at once (64)."""
    stage_response_create: Limit | None = None
    """Responses being created at once (64)."""
    stage_compact_response_create: Limit | None = None
    """Compactions being created at once (16)."""
    account_streams: Limit | None = None
    """Streams of one account at once (8)."""
    account_response_creates: Limit | None = None
    """Responses one account creates at once (4)."""

    @field_validator("upstream_base_url", "auth_base_url")
    @classmethod
    def _without_trailing_slash(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")

    @field_validator("allow_private_upstreams")
    @classmethod
    def _names_hosts(cls, value: str) -> str:
        PrivateHosts.of(value)
        return value

    @property
    def private_hosts(self) -> PrivateHosts:
        """The hosts that may be at private, loopback or link-local addresses."""
        return PrivateHosts.of(self.allow_private_upstreams)

    @property
    def effective_database_url(self) -> str:
        """The database to use: the one named, else a SQLite file in the data directory."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir / 'control.db'}"

    @property
    def effective_key_file(self) -> Path:
        """Where the key of the vault lies when it does not come from the environment."""
        return self.key_file or self.data_dir / "vault.key"

    @property
    def admission_tls(self) -> TlsFiles:
        """The TLS files of the way to the admission server."""
        return TlsFiles(
            certificate=self.admission_tls_certificate,
            key=self.admission_tls_key,
            authority=self.admission_tls_authority,
        )

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yields what does not go together."""
        if self.admission_tls.incomplete():
            yield "admission_tls_certificate", "and SLUICEGATE_CONTROL_ADMISSION_TLS_KEY go together"

    def limit_seeds(self) -> dict[str, int]:
        """Returns the limits that the environment names, by resource or family."""
        seeds = {
            "lanes/proxy_http": self.lane_proxy_http,
            "lanes/proxy_websocket": self.lane_proxy_websocket,
            "lanes/proxy_compact": self.lane_proxy_compact,
            "lanes/dashboard": self.lane_dashboard,
            "stages/token_refresh": self.stage_token_refresh,
            "stages/upstream_websocket_connect": self.stage_upstream_websocket_connect,
            "stages/response_create": self.stage_response_create,
            "stages/compact_response_create": self.stage_compact_response_create,
            "accounts/-/streams": self.account_streams,
            "accounts/-/response_creates": self.account_response_creates,
        }
        return {name: limit for name, limit in seeds.items() if limit is not None}
