"""Certificates that trueup itself never makes."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from agent import tls

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
FAR_AWAY = datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC)


def odd_certificate(
    node: str,
    *,
    key: Ed25519PrivateKey | None = None,
    ca: bool = False,
    identifiers: bool = True,
    identifier_of: Ed25519PublicKey | None = None,
    signer: Ed25519PrivateKey | None = None,
    issuer: str | None = None,
    not_after: datetime.datetime = FAR_AWAY,
) -> bytes:
    """A certificate (DER) as an agent's, but for what the arguments say."""
    key = key or Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, tls.agent_subject(node))])
    issuing = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, tls.agent_subject(issuer or node))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuing)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(LONG_AGO)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if identifiers:
        own = x509.SubjectKeyIdentifier.from_public_key(identifier_of or key.public_key())
        above = x509.SubjectKeyIdentifier.from_public_key((signer or key).public_key())
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above)
        builder = builder.add_extension(own, critical=False).add_extension(authority, critical=False)
    return tls.to_der(builder.sign(signer or key, None))


def store_identity(directory: Path, key: Ed25519PrivateKey, der: bytes) -> Path:
    """An agent's TLS directory with this key and certificate in it."""
    tls.make_private_directory(directory)
    tls.write_private(directory / "client.key", tls.private_pem(key))
    pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    tls.write_private(directory / "client.crt", pem)
    return directory
