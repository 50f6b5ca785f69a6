"""A certificate authority of a test's own, and a certificate of this machine that it signed."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificates:
    """Files in a folder: `authority` to be trusted, `certificate` with its `key` for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.certificate, self.key = (folder / f"{name}.pem" for name in ("ca", "server", "key"))
        authority_key, self._key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        authority = _signed("tests", authority_key, "tests", authority_key, is_authority=True)
        self.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        certificate = _signed("server", self._key, "tests", authority_key, is_authority=False)
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._write_key(serialization.NoEncryption())

    def lock_key(self, phrase: str) -> None:
        """Write the key anew, with a password."""
        self._write_key(serialization.BestAvailableEncryption(phrase.encode()))

    def server(self) -> ssl.SSLContext:
        """What a server of 127.0.0.1 speaks TLS with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def _write_key(self, locked: serialization.KeySerializationEncryption) -> None:
        form = serialization.PrivateFormat.TraditionalOpenSSL
        self.key.write_bytes(self._key.private_bytes(serialization.Encoding.PEM, form, locked))


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    signer: str,
    signer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, signer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if not is_authority:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer_key, hashes.SHA256())
