"""The simulator's settings: `SLUICEGATE_SIMULATOR_…`."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from service_runtime.settings import ServiceSettings


class SimulatorSettings(ServiceSettings):
    """Where the simulator listens, and its pace."""

    model_config = SettingsConfigDict(env_prefix="SLUICEGATE_SIMULATOR_")

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=9999, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    event_delay: float = Field(
        default=0.02, ge=0, le=60, description="Seconds between two events of an answer, so that streaming is visible."
    )
    access_token_ttl: float = Field(
        default=10 * 86_400, gt=0, description="Seconds that an access token lives, unless its account says otherwise."
    )
