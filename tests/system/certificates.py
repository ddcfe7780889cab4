"""Certificates made while a test runs: an authority of the test's own, and what it signs."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from service_runtime.tls import TlsFiles

HERE: tuple[x509.GeneralName, ...] = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
)
HOUR = datetime.timedelta(hours=1)


class Authority:
    """Signs certificates, for `localhost` and 127.0.0.1 unless told otherwise; leaves them in a folder as PEM files."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        builder = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.file.write_bytes(self._signed(builder))

    def issue(
        self,
        name: str,
        *,
        expired: bool = False,
        names: tuple[x509.GeneralName, ...] = HERE,
        for_servers_only: bool = False,
    ) -> TlsFiles:
        """Returns a certificate and its key, with this authority as the one to believe."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, ago=10 if expired else 1, ahead=-5 if expired else 1)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if for_servers_only:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        files = TlsFiles(
            certificate=self._folder / f"{name}.pem", key=self._folder / f"{name}.key", authority=self.file
        )
        assert files.certificate is not None
        assert files.key is not None
        files.certificate.write_bytes(self._signed(builder))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ago: int = 1, ahead: int = 1
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - ago * HOUR)
            .not_valid_after(now + ahead * HOUR)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
