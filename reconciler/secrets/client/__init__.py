"""Secrets of Infisical for any Python program, see docs/python-client.md: what it may import."""

from reconciler.secrets.client.client import InfisicalClient
from reconciler.secrets.client.config import InfisicalConfig
from reconciler.secrets.client.errors import InfisicalConnectionError, SecretNotFoundError
from reconciler.secrets.client.model import (
    CacheState,
    ClientState,
    SecretCache,
    SecretValue,
)
from reconciler.secrets.values import Secret

__all__ = [
    "CacheState",
    "ClientState",
    "InfisicalClient",
    "InfisicalConfig",
    "InfisicalConnectionError",
    "Secret",
    "SecretCache",
    "SecretNotFoundError",
    "SecretValue",
]
