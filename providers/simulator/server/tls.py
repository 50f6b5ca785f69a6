"""`--tls`: a throw-away certificate authority and a certificate for localhost, for clients that insist on https.

Both have the extensions that Python 3.13's stricter verification asks for. The authority's key is never written down.
"""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

NAMES = ("localhost",)
ADDRESSES = ("127.0.0.1", "::1")
LIFE = timedelta(days=30)


@contextlib.contextmanager
def throw_away_tls() -> Iterator[tuple[ssl.SSLContext, Path]]:
    """A server's context, and the file with the authority that its clients must trust; gone afterwards."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = Path(tempfile.mkdtemp(prefix="reelworks-sim-tls-"))
    try:
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        authority, certificate = _certificates(ca_key, key)
        ca_path, chain_path = folder / "ca.pem", folder / "server.pem"
        pem = serialization.Encoding.PEM
        ca_path.write_bytes(authority.public_bytes(pem))
        chain_path.touch(mode=0o600)
        chain_path.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            + certificate.public_bytes(pem)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain_path)
        chain_path.unlink()
        yield context, ca_path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _certificates(ca_key: EllipticCurvePrivateKey, key: EllipticCurvePrivateKey) -> tuple[Certificate, Certificate]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.now(UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Reelworks simulator, throw-away authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Reelworks simulator")])
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())

    def build(
        name: x509.Name, of: EllipticCurvePrivateKey, *extensions: tuple[x509.ExtensionType, bool]
    ) -> Certificate:
        builder = x509.CertificateBuilder(issuer, name, of.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + LIFE)
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, critical=is_critical)
        return builder.sign(ca_key, hashes.SHA256())

    def usage(*, sign: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=sign, key_cert_sign=not sign, crl_sign=not sign, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip

    names: list[x509.GeneralName] = [x509.DNSName(name) for name in NAMES]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ADDRESSES]
    authority = build(
        issuer, ca_key, (x509.BasicConstraints(True, 0), True), (usage(sign=False), True), (ca_id, False)
    )  # fmt: skip
    certificate = build(
        subject, key, (x509.BasicConstraints(False, None), True), (usage(sign=True), True),
        (x509.SubjectAlternativeName(names), False),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), False),
    )  # fmt: skip
    return authority, certificate
