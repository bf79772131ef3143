"""Infisical over TLS: a self-hosted server's CA is taken from the system, and an unknown one is refused."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from reconciler.secrets.errors import SourceDown
from reconciler.secrets.infisical import InfisicalSource
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import context_for, infisical


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "double")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "double.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.fixture
def double(certificate: Path) -> InfisicalDouble:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    return InfisicalDouble(tls)


async def test_a_ca_of_the_system_is_trusted(
    double: InfisicalDouble, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with double:
        double.secrets[double.project, "prod", "/"] = {"KEY": "value"}
        source = InfisicalSource(infisical(double), context_for(double))
        assert {key: value.reveal() for key, value in (await source.fetch("production")).items()} == {
            "KEY": "value"
        }


async def test_an_unknown_ca_is_not(double: InfisicalDouble) -> None:
    with double:
        source = InfisicalSource(infisical(double), context_for(double))
        with pytest.raises(SourceDown, match="its TLS certificate is not trusted"):
            await source.fetch("production")
        assert double.requests == [], "no credential travels before the server is known"
