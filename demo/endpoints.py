"""Where the processes of a running system are, for whoever talks to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from demo.ports import Ports

_VARIABLES = {
    "edge": "SLUICEGATE_DEMO_EDGE_URL",
    "control": "SLUICEGATE_DEMO_CONTROL_URL",
    "admission": "SLUICEGATE_DEMO_ADMISSION_TARGET",
    "simulator": "SLUICEGATE_DEMO_SIMULATOR_URL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """URLs of edge, control API and simulator; `host:port` of the admission server."""

    edge: str
    control: str
    admission: str
    simulator: str

    @classmethod
    def on_loopback(cls, ports: Ports) -> Self:
        """Returns those of a system on this machine."""
        return cls(
            edge=f"http://127.0.0.1:{ports.edge}",
            control=f"http://127.0.0.1:{ports.control}",
            admission=f"127.0.0.1:{ports.admission}",
            simulator=f"http://127.0.0.1:{ports.simulator}",
        )

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> Self:
        """Returns those that variables name as `.demo/demo.env` does. Raises `KeyError` for one that is missing."""
        return cls(**{name: environment[variable] for name, variable in _VARIABLES.items()})

    def variables(self) -> dict[str, str]:
        """Returns them as variables."""
        return {variable: getattr(self, name) for name, variable in _VARIABLES.items()}
