"""Secret sources for tests: specs against the double and env files, stores of them, and what these gave."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.secrets.client import InfisicalConfig
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.infisical import InfisicalSource
from reconciler.secrets.source import HttpTimeouts, SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import SecretValue
from reconciler.spec.model import (
    EnvCredential,
    EnvFileSettings,
    EnvironSettings,
    InfisicalSettings,
    SecretSource,
)
from tests.canaries import canary, may_hold
from tests.contracts.infisical_double import InfisicalDouble

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VALUE = canary("source")
"""What `KEY` has in the double of the fixture `filled`."""


def context_for(
    double: InfisicalDouble, *, timeouts: HttpTimeouts | None = None, **environ: str
) -> SourceContext:
    """Credentials `ID` and `SECRET` are the double's, unless `environ` says otherwise."""
    variables = {"ID": double.client_id, "SECRET": double.client_secret, **environ}
    return SourceContext(Credentials(variables), timeouts=timeouts or HttpTimeouts(), utc_now=lambda: NOW)


def infisical(double: InfisicalDouble, name: str = "prod", **changes: Any) -> SecretSource:
    """A source for `/` of the double's environment `prod`; names of settings and of the source mix."""
    common = {key: changes.pop(key) for key in SecretSource.__struct_fields__ if key in changes}
    settings = {
        "host": double.url,
        "project_id": double.project,
        "environment_slug": "prod",
        "client_id": EnvCredential(name="ID"),
        "client_secret": EnvCredential(name="SECRET"),
        **changes,
    }
    return SecretSource(name=name, kind="infisical", settings=InfisicalSettings(**settings), **common)


def config_for(double: InfisicalDouble, **changes: Any) -> InfisicalConfig:
    """Of the client, for the double's environment `dev`."""
    given = {
        "enabled": True,
        "host": double.url,
        "project_id": double.project,
        "environment_slug": "dev",
        "client_id": double.client_id,
        "client_secret": double.client_secret,
    }
    return InfisicalConfig(**{**given, **changes})


def source_of(
    double: InfisicalDouble, context: SourceContext | None = None, **changes: Any
) -> InfisicalSource:
    return InfisicalSource(infisical(double, **changes), context or context_for(double))


def place(double: InfisicalDouble, path: str = "/", environment: str = "prod") -> tuple[str, str, str]:
    """A place of secrets in the double's project."""
    return (double.project, environment, path)


def env_file(path: Path, name: str = "local", **common: Any) -> SecretSource:
    return SecretSource(name=name, kind="env_file", settings=EnvFileSettings(file=str(path)), **common)


def environ(*keys: str, name: str = "own", **common: Any) -> SecretSource:
    return SecretSource(name=name, kind="environ", settings=EnvironSettings(keys=keys), **common)


def store_of(context: SourceContext, *sources: SecretSource) -> SecretStore:
    return SecretStore({source.name: source for source in sources}, context=context)


def write_env_file(path: Path, text: str, mode: int = 0o600) -> Path:
    may_hold(path).write_text(text)
    path.chmod(mode)
    return path


async def fetched(source: InfisicalSource) -> dict[str, str]:
    return {key: value.reveal() for key, value in (await source.fetch("production")).items()}


def plain(values: Mapping[str, SecretValue]) -> dict[str, str]:
    return {name: value.value.reveal() for name, value in values.items()}


def provenance(values: Mapping[str, SecretValue]) -> tuple[str, str, bool, bool, bool]:
    """Of the single value `KEY`: source, origin, and whether it is cached, stale and a fallback's."""
    (value,) = values.values()
    assert value.retrieved_at == NOW
    assert value.environment == "production"
    assert value.key == "KEY"
    return value.source, value.origin, value.is_cached, value.is_stale, value.is_fallback


def lines(caplog: pytest.LogCaptureFixture, phrase: str) -> list[str]:
    """The messages with the phrase that were logged."""
    return [message for message in caplog.messages if phrase in message]
