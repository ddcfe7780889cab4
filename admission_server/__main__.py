"""`python -m admission_server`: serves until SIGTERM or SIGINT."""

from admission_server.server import serve
from admission_server.settings import AdmissionSettings
from service_runtime.process import run_service

if __name__ == "__main__":
    run_service("admission_server", AdmissionSettings, serve)
