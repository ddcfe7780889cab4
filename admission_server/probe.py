"""Asks the admission server of this environment whether it is healthy: `python -m admission_server.probe`.

It reads the server's own settings: where it listens, which certificate it shows, and a token where even health is told
to nobody without one. Under mutual TLS it shows a certificate of its own, or the server's when it has none.
"""

import sys

from admission_server.roles import TokensFileError, read_tokens
from admission_server.settings import AdmissionSettings
from service_runtime.grpc_probe import check_grpc
from service_runtime.probe import Unhealthy, exit_status
from service_runtime.settings import SettingsError


def check_server(settings: AdmissionSettings) -> None:
    """Raises `Unhealthy` unless the server with these settings answers SERVING."""
    token = "" if settings.open_state else _some_token(settings)
    check_grpc(settings.host, settings.port, files=settings.probe_tls, token=token)


def _some_token(settings: AdmissionSettings) -> str:
    if settings.tokens_file is None:
        raise Unhealthy("no tokens file is named")
    try:
        return read_tokens(settings.tokens_file)[-1][1]  # health is told to every role
    except TokensFileError as error:
        raise Unhealthy(str(error)) from None


def _check_environment() -> None:
    try:
        settings = AdmissionSettings.from_environment()
    except SettingsError as error:
        raise Unhealthy(str(error)) from None
    check_server(settings)


if __name__ == "__main__":
    sys.exit(exit_status(_check_environment))
