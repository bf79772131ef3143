"""Why a source gave no values: down, refusing, or answering with something that must not be used.

The difference tells who must act: an outage passes, a refusal waits for a person. What may serve meanwhile is
the same for both, an old value up to `max_stale` and then the fallbacks.
"""

from reconciler.errors import SecretSourceUnavailable, TrueupError


class SourceDown(SecretSourceUnavailable):
    """The source could not be asked, or its answer proves nothing: asking again later may help.

    `retry_after`: seconds that the source asked us to wait, where it said so.
    """

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class SourceRefused(SecretSourceUnavailable):
    """The source answered and will not serve: no right, no such place, unusable values. A person must act.

    `retry_after`: seconds for which asking again would only do harm (a login that locks the identity out).
    """

    retryable = False

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class VariableUnusable(TrueupError):
    """A name that cannot be a variable, or a value that no environment or file can carry."""

    reason = "VariableInvalid"


class TemplateInvalid(TrueupError):
    """A template that cannot be rendered. Its text names places, names and kinds of errors, never a value."""

    reason = "TemplateInvalid"
