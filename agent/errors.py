"""The errors that both sides raise: each kind has a stable reason and an exit code."""

from typing import ClassVar


class TrueupError(Exception):
    """Base of every error that a person may see.

    `reason` is stable and goes to status files; `exit_code` is what a command that ends with this
    error returns. The text is one line: what is wrong, where, and what to do about it.
    """

    reason: ClassVar[str] = "InternalError"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    """Whether the same attempt may succeed later without anybody changing git or settings."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class SettingsError(TrueupError):
    """A setting, flag or configuration file is missing or wrong; a person must mend it."""

    reason = "SettingsInvalid"


class ConnectionRefused(TrueupError):
    """The peer answered and said no: wrong token, unknown certificate, wrong fingerprint."""

    reason = "ConnectionRefused"


class ProtocolError(TrueupError):
    """Base of what can go wrong with the order or the form of messages."""

    reason = "ProtocolError"


class LocalProtocolError(ProtocolError):
    """We tried to send something that the protocol does not allow now: a bug of ours."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something malformed, too large or out of order."""


class PathRefused(TrueupError):
    """A path is absolute, escapes its root, is not canonical, or leads through a symlink."""

    reason = "PathRefused"


class TransferFailed(TrueupError):
    """A sync task could not be completed; the target keeps its old, complete files."""

    reason = "SyncFailed"
    retryable = True
