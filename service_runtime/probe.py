"""Asks a process whether it is healthy: `python -m service_runtime.probe URL`, exit status 0 if so. For containers,
which have no other tools: `http://HOST:PORT/health/live`, or `grpc://HOST:PORT` for the gRPC health protocol.
"""

import sys
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

TIMEOUT = 3.0


def healthy(url: str) -> bool:
    """Returns whether the process behind `url` answers that it is."""
    parts = urlsplit(url)
    if parts.scheme == "grpc":
        return _serving(parts.netloc)
    if parts.scheme != "http":
        raise ValueError(f"{url}: only http:// and grpc:// can be asked")
    try:
        with urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - the scheme was looked at
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _serving(target: str) -> bool:
    # Imported here, because only the admission server's image has it.
    import grpc  # noqa: PLC0415
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    with grpc.insecure_channel(target) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if healthy(sys.argv[1]) else 1)
