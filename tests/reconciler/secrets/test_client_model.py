"""The data model of the Python client: what is valid, what is refused, and that it prints no value."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import SettingsError
from reconciler.secrets import values
from reconciler.secrets.client import CacheState, InfisicalConfig, Secret, SecretCache, SecretValue
from tests.canaries import canary, may_hold

NOW = datetime(2025, 11, 1, 10, 30, tzinfo=UTC)

WHOLE: Mapping[str, Any] = {
    "enabled": True,
    "project_id": "65abc123def456",
    "environment_slug": "dev",
    "client_id": "machine-identity-abc123",
    "client_secret": canary("config"),
}


# --- configuration -----------------------------------------------------------------------------


def test_a_whole_configuration_with_its_defaults() -> None:
    config = InfisicalConfig(**WHOLE)
    assert (config.host, config.cache_ttl) == ("https://app.infisical.com", 60)
    assert config.client_secret == Secret(canary("config"))
    assert canary("config") not in f"{config!r} {config}"
    with pytest.raises(AttributeError):
        config.enabled = False  # type: ignore[misc]


def test_what_is_not_enabled_is_not_checked() -> None:
    assert InfisicalConfig().enabled is False
    InfisicalConfig(host="nonsense", environment_slug="production", cache_ttl=-1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"enabled": 1}, "enabled: give True or False"),
        ({"enabled": "true"}, "enabled: give True or False"),
        ({"project_id": None}, "project_id: it is needed"),
        ({"project_id": ""}, "project_id: it is needed"),
        ({"environment_slug": None}, "environment_slug: it is needed"),
        ({"client_id": None}, "client_id: it is needed"),
        ({"client_secret": None}, "client_secret: it is needed"),
        ({"client_secret": ""}, "client_secret: it is needed"),
        ({"environment_slug": "production"}, "'production' is none of dev, staging, prod"),
        ({"host": "http://infisical.example"}, "host: it is plain http"),
        ({"host": "infisical.example"}, "host: it is no http"),
        ({"cache_ttl": -1}, "cache_ttl: give whole seconds, 0 to 3600"),
        ({"cache_ttl": 3601}, "cache_ttl: give whole seconds, 0 to 3600"),
        ({"cache_ttl": True}, "cache_ttl: give whole seconds, 0 to 3600"),
    ],
)
def test_a_configuration_that_is_refused(change: Mapping[str, Any], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        InfisicalConfig(**{**WHOLE, **change})
    assert str(caught.value).startswith(text) or text in str(caught.value)
    assert canary("config") not in str(caught.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        InfisicalConfig(enabled=True, cache_ttl=9999)
    assert len(str(caught.value).splitlines()) == 5


@pytest.mark.parametrize("ttl", [0, 3600])
def test_the_bounds_of_the_ttl_belong_to_it(ttl: int) -> None:
    assert InfisicalConfig(**{**WHOLE, "cache_ttl": ttl}).cache_ttl == ttl


def test_plain_http_is_for_this_machine_alone() -> None:
    InfisicalConfig(**{**WHOLE, "host": "http://127.0.0.1:8080"})


# --- configuration from variables --------------------------------------------------------------

VARIABLES = {
    "INFISICAL_ENABLED": "true",
    "INFISICAL_PROJECT_ID": "65abc123def456",
    "INFISICAL_ENVIRONMENT": "dev",
    "INFISICAL_CLIENT_ID": "machine-identity-abc123",
    "INFISICAL_CLIENT_SECRET": canary("config"),
}


def test_variables() -> None:
    assert InfisicalConfig.from_environ(VARIABLES) == InfisicalConfig(**WHOLE)
    more = {"INFISICAL_HOST": "https://infisical.example", "INFISICAL_CACHE_TTL": "0"}
    config = InfisicalConfig.from_environ({**VARIABLES, **more})
    assert (config.host, config.cache_ttl) == ("https://infisical.example", 0)


@pytest.mark.parametrize("switch", [None, "", "false", "0", "no"])
def test_without_the_switch_nothing_is_on(switch: str | None) -> None:
    variables = {**VARIABLES, "INFISICAL_ENABLED": switch} if switch is not None else dict(VARIABLES)
    if switch is None:
        del variables["INFISICAL_ENABLED"]
    assert InfisicalConfig.from_environ(variables) == InfisicalConfig()


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    file = may_hold(tmp_path / "client-secret")
    file.write_text(canary("config") + "\n")
    variables = {**VARIABLES, "INFISICAL_CLIENT_SECRET": "", "INFISICAL_CLIENT_SECRET_FILE": str(file)}
    assert InfisicalConfig.from_environ(variables) == InfisicalConfig(**WHOLE)
    with pytest.raises(SettingsError, match="both set"):
        InfisicalConfig.from_environ({**variables, "INFISICAL_CLIENT_SECRET": "x"})


def test_the_slug_under_either_name() -> None:
    slug = {**VARIABLES, "INFISICAL_ENVIRONMENT": "", "INFISICAL_ENVIRONMENT_SLUG": "prod"}
    assert InfisicalConfig.from_environ(slug).environment_slug == "prod"
    with pytest.raises(SettingsError, match="both set, and differ"):
        InfisicalConfig.from_environ({**slug, "INFISICAL_ENVIRONMENT": "dev"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("INFISICAL_ENABLED", "maybe"), ("INFISICAL_CACHE_TTL", "5m"), ("INFISICAL_CACHE_TTL", "-1")],
)
def test_a_variable_that_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: '{value}' is not accepted"):
        InfisicalConfig.from_environ({**VARIABLES, name: value})


# --- one secret --------------------------------------------------------------------------------


def secret(**changes: Any) -> SecretValue:
    given = {
        "key": "GMAIL_API_KEY",
        "value": Secret(canary("value")),
        "environment": "dev",
        "source": "infisical",
        "is_cached": False,
        "retrieved_at": NOW,
    }
    return SecretValue(**{**given, **changes})


@pytest.mark.parametrize(("source", "cached"), [("infisical", False), ("cache", True), ("env_file", False)])
def test_valid_provenance(source: str, cached: bool) -> None:
    assert secret(source=source, is_cached=cached).is_cached is cached


@pytest.mark.parametrize(
    "change",
    [
        {"is_cached": True},
        {"source": "cache"},
        {"source": "env_file", "is_cached": True},
        {"source": "vault"},
        {"key": "lower"},
        {"key": "1ST"},
        {"key": ""},
        {"key": "A\n"},
        {"value": Secret("")},
        {"environment": "production"},
        {"retrieved_at": NOW.replace(tzinfo=None)},
        {"retrieved_at": NOW.astimezone(timezone(timedelta(hours=1)))},
    ],
)
def test_a_value_that_is_refused(change: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        secret(**change)
    assert canary("value") not in str(caught.value)


def test_a_value_is_held_back_and_given_by_reveal() -> None:
    value = secret(value=canary("value"))
    assert canary("value") not in f"{value!r} {value} {value.value}"
    assert value.value.reveal() == canary("value")


def test_a_contradiction_is_refused_of_a_spec_s_values_too() -> None:
    with pytest.raises(ValueError, match="source 'age' with is_cached=True"):
        values.SecretValue("key", Secret("x"), "production", "age", True, NOW, "keys")


# --- the cache ---------------------------------------------------------------------------------

FOUND = {"A": Secret("1")}


def test_the_states_of_a_cache() -> None:
    cache = SecretCache(ttl_seconds=60)
    assert (cache.state, cache.is_expired()) == (CacheState.EMPTY, True)
    cache = cache.updated(FOUND, datetime.now(UTC))
    assert (cache.state, cache.is_expired()) == (CacheState.POPULATED, False)
    cache = cache.updated(FOUND, NOW)
    assert (cache.state, cache.is_expired()) == (CacheState.STALE, True)
    cache = cache.updated({"A": Secret("2")}, datetime.now(UTC))
    assert (cache.state, cache.is_expired()) == (CacheState.REFRESHED, False)


def test_it_is_expired_strictly_after_its_ttl() -> None:
    cache = SecretCache(FOUND, NOW, 60)
    assert not cache.is_expired(NOW + timedelta(seconds=60))
    assert cache.is_expired(NOW + timedelta(seconds=60, microseconds=1))


def test_a_ttl_of_0_is_always_expired() -> None:
    assert SecretCache(FOUND, NOW, 0).is_expired(NOW)
    assert SecretCache(FOUND, datetime.now(UTC), 0).state is CacheState.STALE


@pytest.mark.parametrize(
    "change",
    [
        {"secrets": {"": Secret("x")}},
        {"ttl_seconds": -1},
        {"ttl_seconds": 3601},
        {"last_updated": NOW.replace(tzinfo=None)},
    ],
)
def test_a_cache_that_is_refused(change: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError):
        SecretCache(**{"secrets": FOUND, "last_updated": NOW, **change})


def test_a_cache_prints_no_value() -> None:
    cache = SecretCache({"A": canary("cached")}, NOW)  # type: ignore[dict-item]
    assert canary("cached") not in f"{cache!r} {cache.secrets}"
    assert cache.secrets["A"].reveal() == canary("cached")
