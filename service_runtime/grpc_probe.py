"""Asks a gRPC server whether it is healthy, over TLS and mutual TLS where it speaks them.

A certificate names a service, not the loopback address that a probe calls. So the server must show a certificate that
the probe was given, and is then asked by the name in there: nothing is believed unseen, and no check is turned off.
"""

import socket
import ssl
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service_runtime.probe import TIMEOUT, Unhealthy
from service_runtime.tls import PLAINTEXT, TlsFiles, channel_credentials

_ALL_ADDRESSES = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
_DIRECT = ("grpc.enable_http_proxy", 0)
_Status = health_pb2.HealthCheckResponse


def check_grpc(host: str, port: int, *, files: TlsFiles = PLAINTEXT, token: str = "") -> None:
    """Raises `Unhealthy` unless the server that listens on `host` and `port` answers SERVING.

    `files.authority` is the certificate that the server has, or who signed it; the other two are for mutual TLS.
    `token` is for a server that answers nobody without one.
    """
    host = _ALL_ADDRESSES.get(host, host)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        status = _ask(target, _name_shown(host, port, files), files, token)
    except grpc.RpcError as error:
        raise Unhealthy(f"{target} does not answer: {error.code().name}: {error.details()}") from None
    except (OSError, ValueError) as error:
        raise Unhealthy(f"{target} cannot be asked: {error}") from None
    if status != _Status.SERVING:
        raise Unhealthy(f"{target} says {_Status.ServingStatus.Name(status)}")


def _ask(target: str, name: str, files: TlsFiles, token: str) -> int:
    credentials = channel_credentials(files)
    if credentials is None:
        channel = grpc.insecure_channel(target, options=(_DIRECT,))
    else:
        channel = grpc.secure_channel(target, credentials, options=(_DIRECT, ("grpc.ssl_target_name_override", name)))
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), metadata=metadata, timeout=TIMEOUT
        )
    return int(answer.status)


def _name_shown(host: str, port: int, files: TlsFiles) -> str:
    """Returns a name in the certificate that the server shows; empty without TLS. Raises `OSError`, `ValueError`."""
    if files.empty:
        return ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the name is what we want to know; gRPC checks the certificate once more with it
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(files.authority)
    if files.certificate:
        context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, port), TIMEOUT) as plain, context.wrap_socket(plain) as connection:
        shown: dict[str, Any] = dict(connection.getpeercert() or {})
    names = [str(value) for kind, value in shown.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    names += [value for part in shown.get("subject", ()) for kind, value in part if kind == "commonName"]
    if not names:
        raise ValueError("its certificate names nobody")
    return names[0].replace("*", "probe", 1)
