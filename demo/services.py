"""The processes of one system and the environment that ties them together.

Everything a process is told, it is told by its own environment variables, as anywhere else: this file is also an
example of how to wire Sluicegate by hand.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from demo.ports import Ports
from service_runtime.deployment_secrets import DeploymentSecrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One process: `python -m <module>`, and how to know that it answers."""

    name: str
    module: str
    environment: dict[str, str] = field(repr=False)
    health_url: str = ""
    probed_by_settings: bool = False
    """`health_url` answers 200 over HTTP; or it is the admission server, whose probe reads the same environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemOptions:
    """What differs between a demo, `make up` and a system test."""

    directory: Path
    """Where the processes keep their state and their logs."""
    ports: Ports
    simulator: bool = True
    edge_name: str = "edge_proxy"
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables on top, for every process."""

    @property
    def secrets(self) -> DeploymentSecrets:
        """Where the processes find what they know each other by."""
        return DeploymentSecrets(self.directory / "secrets", self.directory / "control")


def services_of(options: SystemOptions) -> list[Service]:
    """Returns the processes of a system, in the order in which to start them; they may come up in any order."""
    admission = _admission_server(options)
    rest = [_control_api(options), _edge_proxy(options)]
    return [_simulator(options), admission, *rest] if options.simulator else [admission, *rest]


def _simulator(options: SystemOptions) -> Service:
    ports = options.ports
    return Service(
        name="upstream_simulator",
        module="upstream_simulator",
        environment=_environment(
            options, SLUICEGATE_SIMULATOR_HOST="127.0.0.1", SLUICEGATE_SIMULATOR_PORT=str(ports.simulator)
        ),
        health_url=f"http://127.0.0.1:{ports.simulator}/__simulate/stats",
    )


def _admission_server(options: SystemOptions) -> Service:
    ports = options.ports
    return Service(
        name="admission_server",
        module="admission_server",
        environment=_environment(
            options,
            SLUICEGATE_ADMISSION_HOST="127.0.0.1",
            SLUICEGATE_ADMISSION_PORT=str(ports.admission),
            SLUICEGATE_ADMISSION_METRICS_PORT=str(ports.admission_metrics),
            SLUICEGATE_ADMISSION_STATE_DIR=str(options.directory / "admission"),
            SLUICEGATE_ADMISSION_TOKENS_FILE=str(options.secrets.admission_tokens),
        ),
        probed_by_settings=True,
    )


def _control_api(options: SystemOptions) -> Service:
    ports = options.ports
    upstream = {}
    if options.simulator:
        upstream = {
            "SLUICEGATE_CONTROL_UPSTREAM_BASE_URL": f"http://127.0.0.1:{ports.simulator}/backend-api",
            "SLUICEGATE_CONTROL_AUTH_BASE_URL": f"http://127.0.0.1:{ports.simulator}",
            "SLUICEGATE_CONTROL_ALLOW_PRIVATE_UPSTREAMS": "true",
        }
    return Service(
        name="control_api",
        module="control_api",
        environment=_environment(
            options,
            SLUICEGATE_CONTROL_HOST="127.0.0.1",
            SLUICEGATE_CONTROL_PORT=str(ports.control),
            SLUICEGATE_CONTROL_METRICS_PORT=str(ports.control_metrics),
            SLUICEGATE_CONTROL_DATA_DIR=str(options.directory / "control"),
            # A key that somebody keeps elsewhere has encrypted what is stored: it stays the one.
            SLUICEGATE_CONTROL_KEY_FILE=os.environ.get("SLUICEGATE_CONTROL_KEY_FILE") or str(options.secrets.vault_key),
            SLUICEGATE_CONTROL_ADMIN_TOKEN_FILE=str(options.secrets.admin_token),
            SLUICEGATE_CONTROL_ADMISSION_TARGET=f"127.0.0.1:{ports.admission}",
            SLUICEGATE_CONTROL_ADMISSION_TOKEN_FILE=str(options.secrets.role_token("control")),
            **upstream,
        ),
        health_url=f"http://127.0.0.1:{ports.control}/health/ready",
    )


def _edge_proxy(options: SystemOptions) -> Service:
    ports = options.ports
    return Service(
        name=options.edge_name,
        module="edge_proxy",
        environment=_environment(
            options,
            SLUICEGATE_EDGE_HOST="127.0.0.1",
            SLUICEGATE_EDGE_PORT=str(ports.edge),
            SLUICEGATE_EDGE_METRICS_PORT=str(ports.edge_metrics),
            SLUICEGATE_EDGE_ADMISSION_TARGET=f"127.0.0.1:{ports.admission}",
            SLUICEGATE_EDGE_ADMISSION_TOKEN_FILE=str(options.secrets.role_token("edge")),
            SLUICEGATE_EDGE_CONTROL_URL=f"http://127.0.0.1:{ports.control}",
            SLUICEGATE_EDGE_KEYLESS="loopback",
            SLUICEGATE_EDGE_FORWARD_SIMULATE=str(options.simulator).lower(),
        ),
        health_url=f"http://127.0.0.1:{ports.edge}/health/ready",
    )


def _environment(options: SystemOptions, **variables: str) -> dict[str, str]:
    # What somebody has set for one process by hand (a limit, a time) stays; who talks to whom is decided here.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**inherited, **variables, **options.environment, "PYTHONUNBUFFERED": "1"}


def command_of(service: Service) -> list[str]:
    """Returns the command that runs a service in this very environment."""
    return [sys.executable, "-m", service.module]
