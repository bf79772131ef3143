"""Why GitHub gave nothing: it could not be asked, or it said no. The difference tells who must act."""

from reconciler.errors import TrueupError
from reconciler.rest_client import AsksToWait


class GitHubDown(TrueupError, AsksToWait):
    """It could not be asked, or asked us to wait: `retry_after` is in seconds, where it said so."""

    reason = "GitHubUnavailable"
    retryable = True

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class GitHubRefused(TrueupError):
    """It answered and will not do it; `status` is HTTP's. A person must act."""

    reason = "GitHubRefused"

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class NoToken(TrueupError):
    """Nothing to log in to GitHub with."""

    reason = "SettingsInvalid"
