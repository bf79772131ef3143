"""Keys, self-signed certificates and the statements that tokens sign. Contexts are in `agent.contexts`.

Both sides speak TLS 1.3 only and know each other by key, not by name or authority. Three facts of
Python's ssl decide the shape:

- A server that shall see a self-signed client certificate has to require one and to hold that very
  certificate as a trust anchor. To tell anchors apart OpenSSL needs a subject of its own in each, and
  subject and authority key identifiers; `check_agent_certificate` insists on them.
- An anchor may sign others, so the server looks the certificate up by its hash after each handshake.
- In TLS 1.3 the client's handshake succeeds before the server judged its certificate; only a
  `HelloAck` means connected.
"""

import datetime
import hashlib
import os
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from agent.errors import ConnectionRefused, SettingsError

_NOT_BEFORE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""RFC 5280, 4.1.2.5: no end. These certificates are revoked by forgetting them, and a host whose clock
is wrong must still be reachable."""

_PAIRING_LABEL = b"trueup pairing v1\0"
_HELLO_LABEL = b"trueup hello v1\0"
_RENEWAL_LABEL = b"trueup renewal v1\0"


# --- identities --------------------------------------------------------------------------------


def spki_fingerprint(key: Ed25519PublicKey | x509.Certificate) -> str:
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER), lower-case hex: what a pin names."""
    public = key.public_key() if isinstance(key, x509.Certificate) else key
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def der_hash(certificate: bytes) -> str:
    """SHA-256 of a whole certificate (DER), lower-case hex: what an enrolled agent is looked up by."""
    return hashlib.sha256(certificate).hexdigest()


def to_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def load_certificate(der: bytes) -> x509.Certificate:
    """Parse a peer's certificate; ConnectionRefused if it is none or has another kind of key."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        ours = isinstance(certificate.public_key(), Ed25519PublicKey)
    except (ValueError, UnsupportedAlgorithm):
        raise ConnectionRefused("the peer's certificate cannot be read") from None
    if not ours:
        raise ConnectionRefused("the peer's certificate has no Ed25519 key")
    return certificate


def agent_subject(node: str) -> str:
    """The common name of a node's certificate."""
    # An X.520 common name holds 64 characters; a long node id still gets one of its own.
    name = f"trueup-agent {node}"
    return name if len(name) <= 64 else f"trueup-agent {hashlib.sha256(node.encode()).hexdigest()[:40]}"


PRIMARY_SUBJECT = "trueup-primary"


def make_certificate(key: Ed25519PrivateKey, common_name: str) -> x509.Certificate:
    """A self-signed end-entity certificate, valid without end."""
    public = key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, None)
    )


def check_agent_certificate(der: bytes, node: str) -> x509.Certificate:
    """Whether a certificate may be enrolled for a node, so that it can serve as a trust anchor.

    Raises ConnectionRefused unless it is self-signed, names this node, is no authority, and carries
    the identifiers of its own key (so that no agent can imitate another's and get in its way).
    """
    certificate = load_certificate(der)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(certificate.subject) != 1 or len(names) != 1 or names[0].value != agent_subject(node):
        raise ConnectionRefused("the agent's certificate is made for another node")
    try:
        certificate.verify_directly_issued_by(certificate)
        public = certificate.public_key()
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        subject = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise ConnectionRefused("the agent's certificate is not made the way trueup makes them") from None
    own = x509.SubjectKeyIdentifier.from_public_key(public).digest
    if constraints.ca or subject.digest != own or authority.key_identifier != own:
        raise ConnectionRefused("the agent's certificate could stand for other certificates")
    return certificate


# --- what tokens sign --------------------------------------------------------------------------


def _statement(label: bytes, *parts: bytes) -> bytes:
    """Each part with its length before it, so that no two lists of parts give the same bytes."""
    return label + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def pairing_statement(server_fp: str, agent_fp: str, node: str, pinned: bool) -> bytes:
    """What the token signs to pair: who I saw, who I am, and whether I knew whom to expect.

    A man in the middle shows the agent another fingerprint than the primary's own, so that what the
    agent signs is not what the primary checks.
    """
    return _statement(
        _PAIRING_LABEL, server_fp.encode(), agent_fp.encode(), node.encode(), b"\1" if pinned else b"\0"
    )


def hello_statement(server_fp: str, agent_fp: str, node: str, session: bytes) -> bytes:
    """What the token signs in every hello; `session` is empty on the control connection."""
    return _statement(_HELLO_LABEL, server_fp.encode(), agent_fp.encode(), node.encode(), session)


def renewal_statement(server_fp: str, agent_fp: str, node: str, next_der: bytes) -> bytes:
    """What the token signs to offer a certificate: to whom, who I am until now, and all of the next one."""
    parts = server_fp.encode(), agent_fp.encode(), node.encode(), next_der
    return _statement(_RENEWAL_LABEL, *parts)


# --- files -------------------------------------------------------------------------------------


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, at no moment otherwise, whole or not at all.

    What a killed writer leaves has one name, and the next writer of the same file takes it away; so no
    secret stays behind in it. Two must not write the same file at once.
    """
    temporary, descriptor = _open_temporary(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def check_writable(path: Path) -> None:
    """Find out whether `write_private` could write `path`; OSError if not. Leaves nothing."""
    temporary, descriptor = _open_temporary(path)
    os.close(descriptor)
    temporary.unlink()


def _open_temporary(path: Path) -> tuple[Path, int]:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return temporary, os.open(temporary, flags, 0o600)


def make_private_directory(path: Path) -> None:
    """Create a directory, and its parents, that only its owner may enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_identity(directory: Path, name: str, key: Ed25519PrivateKey, common_name: str) -> x509.Certificate:
    """Make a certificate for a key and store both as `<name>.key` and `<name>.crt`, each 0600.

    Blocks on the file system. Raises SettingsError if the directory cannot be written.
    """
    certificate = make_certificate(key, common_name)
    try:
        make_private_directory(directory)
        write_private(directory / f"{name}.key", private_pem(key))
        write_private(directory / f"{name}.crt", certificate.public_bytes(Encoding.PEM))
    except OSError as error:
        raise SettingsError(f"{directory}: the TLS key cannot be stored there: {error.strerror}") from None
    return certificate


def load_identity(directory: Path, name: str) -> x509.Certificate | None:
    """The certificate of a stored identity, or None where there is none.

    Raises SettingsError if one half is missing, unreadable, or does not belong to the other.
    """
    key_path, certificate_path = directory / f"{name}.key", directory / f"{name}.crt"
    try:
        key = load_pem_private_key(key_path.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    except FileNotFoundError:
        # A crash between the two files leaves a key without a certificate, which nobody has seen.
        if not certificate_path.exists():
            return None
        raise SettingsError(
            f"{key_path} is missing while its certificate is there",
            hint="restore it, or pair this node again",
        ) from None
    except OSError as error:
        raise SettingsError(f"{error.filename}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingsError(
            f"{directory}: {name}.key or {name}.crt is damaged", hint="restore it, or pair this node again"
        ) from None
    if not isinstance(key, Ed25519PrivateKey) or key.public_key() != certificate.public_key():
        raise SettingsError(
            f"{directory}: {name}.key does not belong to {name}.crt",
            hint="restore it, or pair this node again",
        )
    return certificate
