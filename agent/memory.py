"""What an agent remembers between runs: its key, its token, the primary it trusts, the newest epoch.

Secrets are in the TLS directory (0700, files 0600): `client.key`, `client.crt`, `token`, and
`server.fp`, which is there once this agent was paired. The epoch is in the state directory. All
methods block on the file system.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import Certificate
from cryptography.x509.oid import NameOID

from agent import tls
from agent.certificates import Certificates
from agent.errors import SettingsError
from agent.node_token import NodeToken


class Memory:
    def __init__(self, state_dir: Path, tls_dir: Path) -> None:
        self.state_dir = state_dir
        self.tls_dir = tls_dir

    def identity(self, node: str) -> Certificate:
        """The agent's own certificate, made at the first call; SettingsError if it is another node's."""
        Certificates(self.tls_dir, node).settle()
        found = tls.load_identity(self.tls_dir, "client")
        name = found and found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        if found is not None and name != tls.agent_subject(node) and not self._has_paired():
            # It never served: the join that made it had a mistyped name. The certificate goes first, as a
            # key without one is made anew should this be cut short.
            self._remove(self.tls_dir / "client.crt")
            found = None
        if found is None:
            return tls.write_identity(
                self.tls_dir, "client", Ed25519PrivateKey.generate(), tls.agent_subject(node)
            )
        if name != tls.agent_subject(node):
            raise SettingsError(
                f"{self.tls_dir}: this key was made for another node ({name!r})",
                hint="give each node a state directory of its own with --state-dir",
            )
        return found

    def _has_paired(self) -> bool:
        return self.token() is not None or self.server() is not None

    def token(self) -> NodeToken | None:
        text = self._read(self.tls_dir / "token")
        return None if text is None else NodeToken.from_text(text, where=str(self.tls_dir / "token"))

    def remember_token(self, token: NodeToken) -> None:
        self._write(self.tls_dir / "token", token.to_text())

    def server(self) -> str | None:
        """Fingerprint of the primary that this agent is paired with; None before."""
        return self._read(self.tls_dir / "server.fp")

    def remember_server(self, fingerprint: str) -> None:
        self._write(self.tls_dir / "server.fp", fingerprint)

    def epoch(self) -> int:
        """The newest fencing epoch that a primary showed; 0 before."""
        path = self.state_dir / "epoch"
        text = self._read(path)
        if text is None:
            return 0
        if not (text.isascii() and text.isdigit()):
            raise SettingsError(f"{path}: is damaged", hint="remove it if only one primary is running")
        return int(text)

    def remember_epoch(self, epoch: int) -> None:
        self._write(self.state_dir / "epoch", str(epoch))

    def _read(self, path: Path) -> str | None:
        try:
            return path.read_text("ascii").strip()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise SettingsError(f"{path}: is damaged") from None
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None

    def _remove(self, path: Path) -> None:
        try:
            path.unlink()
        except OSError as error:
            raise SettingsError(f"{path}: cannot be removed: {error.strerror}") from None

    def _write(self, path: Path, text: str) -> None:
        try:
            tls.make_private_directory(path.parent)
            tls.write_private(path, f"{text}\n".encode("ascii"))
        except OSError as error:
            raise SettingsError(f"{path}: cannot be written: {error.strerror}") from None
