"""Asks a process whether it is healthy: `python -m service_runtime.probe URL`, exit status 0 if so. For containers,
which have no other tools: `http://HOST:PORT/health/live`, or `grpc://HOST:PORT` for the gRPC health protocol.

Settings that a probe must know (TLS, a token) are the service's own: `python -m admission_server.probe` reads them.
"""

import sys
from collections.abc import Callable
from http import HTTPStatus
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

TIMEOUT = 3.0


class Unhealthy(Exception):
    """The process does not say that it is healthy. The message says what it did instead."""


def check(url: str) -> None:
    """Raises `Unhealthy` unless the process behind `url` answers that it is healthy."""
    parts = urlsplit(url)
    if parts.scheme == "grpc":
        # Imported here, because only the admission server's image has it.
        from service_runtime.grpc_probe import check_grpc  # noqa: PLC0415

        check_grpc(parts.hostname or "", parts.port or 0)
    elif parts.scheme == "http":
        _check_http(url)
    else:
        raise ValueError(f"{url}: only http:// and grpc:// can be asked")


def healthy(url: str) -> bool:
    """Returns whether the process behind `url` answers that it is."""
    try:
        check(url)
    except Unhealthy:
        return False
    return True


def exit_status(checked: Callable[[], None]) -> int:
    """Runs a check; returns 0, or 1 after telling on standard error what is wrong, which engines show as its output."""
    try:
        checked()
    except Unhealthy as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


def _check_http(url: str) -> None:
    # A proxy that the environment names is for the way out, never for the process next door.
    direct = build_opener(ProxyHandler({}))
    try:
        with direct.open(url, timeout=TIMEOUT) as answer:
            if answer.status != HTTPStatus.OK:
                raise Unhealthy(f"{url} answered {answer.status}")
    except (URLError, OSError) as error:
        raise Unhealthy(f"{url}: {error}") from None


if __name__ == "__main__":
    sys.exit(exit_status(lambda: check(sys.argv[1])))
