"""An agent's certificate and the one that is to follow it: at each moment the primary accepts one of them.

In the TLS directory `client.key` and `client.crt` are what serves. A renewal puts `next.key` and `next.crt`
beside them, durably, before they are offered; `next.accepted` says that the primary has recorded the offer.
From then on the next one is shown, and the first time that it is let in it takes the place of the other,
which the primary accepts until then. Whoever is killed in between finds one that is accepted. All methods
block on the file system, and raise SettingsError where it fails.
"""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import Certificate

from agent import tls
from agent.errors import SettingsError

CLIENT = "client"
NEXT = "next"


class Certificates:
    def __init__(self, tls_dir: Path, node: str) -> None:
        self._dir = tls_dir
        self._node = node
        self._mark = tls_dir / "next.accepted"

    def settle(self) -> None:
        """Finish what a killed process has begun: `client.key` may be the next one's already."""
        if self._mark.exists() and not self._path("next.key").exists():
            if self._path("next.crt").exists():
                self._rename("next.crt", "client.crt")
            self._remove(self._mark)

    def shown(self) -> tuple[str, Certificate]:
        """The name of the one to be shown, and the certificate."""
        self.settle()
        if self._mark.exists() and (following := self._following()) is not None:
            return NEXT, following
        return CLIENT, self.serving()

    def serving(self) -> Certificate:
        """The one before, which the primary accepts until the next one was used."""
        found = tls.load_identity(self._dir, CLIENT)
        if found is None:
            raise SettingsError(f"{self._dir}: the agent's certificate is gone", hint="pair this node again")
        return found

    def offer(self) -> Certificate:
        """The one that is to follow: as it was offered before, or a new one."""
        following = self._following()
        if following is None:
            following = tls.write_identity(
                self._dir, NEXT, Ed25519PrivateKey.generate(), tls.agent_subject(self._node)
            )
        return following

    def accepted(self, certificate: Certificate) -> None:
        """The primary has recorded what was offered."""
        if self._following() == certificate:
            try:
                tls.write_private(self._mark, b"")
            except OSError as error:
                raise SettingsError(f"{self._mark}: cannot be written: {error.strerror}") from None

    def refused(self) -> None:
        """The next one is not let in, and the one before is: it is to be offered anew."""
        self._remove(self._mark)

    def promote(self) -> None:
        """The next one was let in: from now on there is no other."""
        # In this order, as `settle` goes on from any point of it.
        self._rename("next.key", "client.key")
        self._rename("next.crt", "client.crt")
        self._remove(self._mark)

    def forget(self) -> None:
        """Nothing is to follow; the key goes last, as a certificate without one is a promotion half done."""
        for name in ("next.accepted", "next.crt", "next.key"):
            self._remove(self._path(name))

    def _following(self) -> Certificate | None:
        try:
            return tls.load_identity(self._dir, NEXT)
        except SettingsError:
            self.forget()  # damaged; the one that serves is as good
            return None

    def _path(self, name: str) -> Path:
        return self._dir / name

    def _rename(self, old: str, new: str) -> None:
        try:
            self._path(old).replace(self._path(new))
            self._flush()
        except OSError as error:
            raise SettingsError(f"{self._dir}: {new} cannot be replaced: {error.strerror}") from None

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            self._flush()
        except OSError as error:
            raise SettingsError(f"{path}: cannot be removed: {error.strerror}") from None

    def _flush(self) -> None:
        directory = os.open(self._dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
