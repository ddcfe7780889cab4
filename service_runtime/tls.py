"""TLS by files: credentials for gRPC servers and channels. Without files: plaintext, for private networks.

The files are looked at before they are used, because gRPC itself would only fail later, one connection at a time.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files. `authority` alone makes a client check the server; with all three it is mutual TLS."""

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    @property
    def empty(self) -> bool:
        """Whether no file is named."""
        return not (self.certificate or self.key or self.authority)

    def incomplete(self) -> bool:
        """Whether a certificate is named without its key, or a key without its certificate."""
        return (self.certificate is None) != (self.key is None)

    def check(self) -> None:
        """Raises `ValueError` or `OSError` when the files cannot be read or do not belong together."""
        if self.incomplete():
            raise ValueError("a certificate needs its key, and a key its certificate")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.certificate and self.key:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except ssl.SSLError as error:
                raise ValueError(f"{self.certificate} and {self.key} are no certificate and its key: {error}") from None
        if self.authority:
            try:
                context.load_verify_locations(self.authority)
            except ssl.SSLError as error:
                raise ValueError(f"{self.authority} holds no certificate: {error}") from None


PLAINTEXT = TlsFiles()


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials | None:
    """Returns credentials for a gRPC server, None for plaintext. An authority makes client certificates a must.

    Raises `ValueError` or `OSError` when the files cannot be used.
    """
    if files.empty:
        return None
    if not (files.certificate and files.key):
        raise ValueError("TLS needs a certificate and its key")
    files.check()
    authority = files.authority.read_bytes() if files.authority else None
    return grpc.ssl_server_credentials(
        [(files.key.read_bytes(), files.certificate.read_bytes())],
        root_certificates=authority,
        require_client_auth=authority is not None,
    )


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials | None:
    """Returns credentials for a gRPC channel, None for plaintext. Raises like `server_credentials`."""
    if files.empty:
        return None
    files.check()
    return grpc.ssl_channel_credentials(
        root_certificates=files.authority.read_bytes() if files.authority else None,
        private_key=files.key.read_bytes() if files.key else None,
        certificate_chain=files.certificate.read_bytes() if files.certificate else None,
    )
