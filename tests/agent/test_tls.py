"""Keys, certificates and statements: what they bind, how they are stored, and what is refused."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from agent import tls
from agent.errors import ConnectionRefused, SettingsError
from agent.memory import Memory
from agent.node_token import NodeToken, parse_token_key
from tests.certificates import odd_certificate


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_survives_its_text() -> None:
    token = NodeToken.generate()
    again = NodeToken.from_text(f" {token.to_text()}\n")
    assert again.public_text == token.public_text
    parse_token_key(token.public_text).verify(again.sign(b"x"), b"x")


def test_a_token_shows_nothing() -> None:
    token = NodeToken.generate()
    text = token.to_text()
    assert text not in f"{token} {token!r}"
    assert text.replace("-", "").replace("_", "").replace(":", "").isalnum(), "safe in a shell"


@pytest.mark.parametrize(
    "text", ["", "x", "trueup-token-1:", "trueup-token-1:!!!", "trueup-token-1:AAAA", "ed25519:AA=="]
)
def test_a_broken_token_is_not_quoted(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        NodeToken.from_text(text, where="--token")
    assert str(caught.value).startswith("--token is not a node's token")
    assert text == "" or len(text) < 3 or text not in str(caught.value).replace("trueup-token-1:...", "")


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", "ed25519:€"])
def test_a_broken_token_key_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"nodes\.web-1\.token_key"):
        parse_token_key(text, where="nodes.web-1.token_key")


@given(
    st.lists(
        st.tuples(st.text(max_size=6), st.text(max_size=6), st.text(max_size=6), st.booleans()),
        min_size=2,
        max_size=6,
        unique=True,
    )
)
def test_different_facts_give_different_statements(facts: list[tuple[str, str, str, bool]]) -> None:
    pairings = [tls.pairing_statement(*fact) for fact in facts]
    hellos = [tls.hello_statement(a, b, c, b"\1" if d else b"\0") for a, b, c, d in facts]
    assert len(set(pairings + hellos)) == 2 * len(facts)


def test_the_fingerprint_is_of_the_key_not_of_the_certificate() -> None:
    key = Ed25519PrivateKey.generate()
    one, two = tls.make_certificate(key, "a"), tls.make_certificate(key, "b")
    assert tls.spki_fingerprint(one) == tls.spki_fingerprint(two) == tls.spki_fingerprint(key.public_key())
    assert tls.der_hash(tls.to_der(one)) != tls.der_hash(tls.to_der(two))


@pytest.mark.parametrize("node", ["web-1", "n" * 253])
def test_our_own_certificates_can_be_enrolled(node: str) -> None:
    certificate = tls.make_certificate(Ed25519PrivateKey.generate(), tls.agent_subject(node))
    assert tls.check_agent_certificate(tls.to_der(certificate), node) == certificate


ODD = {
    "another node": odd_certificate("web-2"),
    "an authority": odd_certificate("web-1", ca=True),
    "no identifiers": odd_certificate("web-1", identifiers=False),
    "somebody else's identifiers": odd_certificate(
        "web-1", identifier_of=Ed25519PrivateKey.generate().public_key()
    ),
    "signed by another": odd_certificate("web-1", signer=Ed25519PrivateKey.generate()),
    "no certificate": b"\x30\x03\x02\x01\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("der", ODD.values(), ids=ODD.keys())
def test_certificates_that_may_not_be_enrolled(der: bytes) -> None:
    with pytest.raises(ConnectionRefused):
        tls.check_agent_certificate(der, "web-1")


def test_another_kind_of_key_is_refused() -> None:
    key = generate_ec(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trueup-agent web-1")])
    ours = tls.make_certificate(Ed25519PrivateKey.generate(), "x")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(ours.not_valid_before_utc)
        .not_valid_after(ours.not_valid_after_utc)
        .sign(Ed25519PrivateKey.generate(), None)
    )
    with pytest.raises(ConnectionRefused, match="Ed25519"):
        tls.check_agent_certificate(tls.to_der(certificate), "web-1")


def test_key_files_are_private_from_the_first_moment(tmp_path: Path, open_umask: None) -> None:
    directory = tmp_path / "deep" / "tls"
    tls.write_identity(directory, "client", Ed25519PrivateKey.generate(), "x")
    assert mode(directory) == 0o700
    assert {path.name: mode(path) for path in directory.iterdir()} == {
        "client.key": 0o600,
        "client.crt": 0o600,
    }


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    memory = Memory(tmp_path, tmp_path / "tls")
    first = memory.identity("web-1")
    assert memory.identity("web-1") == first
    # As long as it never paired, another name makes another identity; afterwards it is refused.
    second = memory.identity("web-2")
    assert second != first
    memory.remember_server("0" * 64)
    assert memory.identity("web-2") == second
    with pytest.raises(SettingsError, match="another node"):
        memory.identity("web-1")


def test_a_crash_between_key_and_certificate_heals(tmp_path: Path) -> None:
    memory = Memory(tmp_path, tmp_path / "tls")
    first = memory.identity("web-1")
    (tmp_path / "tls" / "client.crt").unlink()
    assert memory.identity("web-1") != first


@pytest.mark.parametrize("damage", ["missing key", "garbage", "another key"])
def test_a_damaged_identity_is_never_replaced_silently(tmp_path: Path, damage: str) -> None:
    memory = Memory(tmp_path, tmp_path / "tls")
    memory.identity("web-1")
    key = tmp_path / "tls" / "client.key"
    if damage == "missing key":
        key.unlink()
    elif damage == "garbage":
        key.write_bytes(b"garbage")
    else:
        key.write_bytes(tls.private_pem(Ed25519PrivateKey.generate()))
    with pytest.raises(SettingsError, match=r"client\.key"):
        memory.identity("web-1")


def test_memory_of_token_primary_and_epoch(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "state", tmp_path / "tls")
    assert (memory.token(), memory.server(), memory.epoch()) == (None, None, 0)
    token = NodeToken.generate()
    memory.remember_token(token)
    memory.remember_server("ab" * 32)
    memory.remember_epoch(7)
    again = Memory(tmp_path / "state", tmp_path / "tls")
    stored = again.token()
    assert stored is not None
    assert stored.public_text == token.public_text
    assert (again.server(), again.epoch()) == ("ab" * 32, 7)
    assert mode(tmp_path / "tls" / "token") == 0o600
    (tmp_path / "state" / "epoch").write_text("many")
    with pytest.raises(SettingsError, match="damaged"):
        again.epoch()
