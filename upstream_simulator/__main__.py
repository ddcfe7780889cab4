"""`python -m upstream_simulator`."""

from service_runtime.process import run_service
from upstream_simulator.app import serve
from upstream_simulator.settings import SimulatorSettings

if __name__ == "__main__":
    run_service("upstream_simulator", SimulatorSettings, serve)
