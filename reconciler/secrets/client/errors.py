"""What the client raises, beside SettingsError for its configuration and ValueError for a wrong argument."""

from reconciler.errors import SecretMissing, SecretSourceUnavailable


class SecretNotFoundError(SecretMissing):
    """Infisical answered, or the environment was asked in its place on purpose, and it has no such secret."""

    def __init__(self, name: str, *, hint: str | None = None) -> None:
        super().__init__(f"Secret {name} not found", hint=hint)
        self.name = name


class InfisicalConnectionError(SecretSourceUnavailable):
    """Infisical gave nothing that may be used, and neither an old value nor the environment could serve.

    `retry_after`: seconds before which asking again is of no use, where that is known.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
