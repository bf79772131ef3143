"""What a request is refused with."""

from collections.abc import Mapping

from reconciler.errors import TrueupError


class RequestRefused(TrueupError):
    """A request that is not done as it came; `status` is HTTP's, `headers` go with the answer."""

    reason = "RequestRefused"

    def __init__(
        self, status: int, message: str, *, hint: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.headers = dict(headers or {})


class NotAuthenticated(RequestRefused):
    """Nobody is known to be behind the request."""

    reason = "NotAuthenticated"

    def __init__(self, message: str) -> None:
        super().__init__(401, message, headers={"WWW-Authenticate": 'Bearer realm="trueup"'})


class NotAllowed(RequestRefused):
    """Whoever asks is known, and may not do this."""

    reason = "NotAllowed"

    def __init__(self, message: str) -> None:
        super().__init__(403, message)
