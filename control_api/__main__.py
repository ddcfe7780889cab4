"""`python -m control_api`: the control API, until SIGTERM or SIGINT."""

from control_api.serving import serve
from control_api.settings import ControlSettings
from service_runtime.process import run_service

if __name__ == "__main__":
    run_service("control_api", ControlSettings, serve)
