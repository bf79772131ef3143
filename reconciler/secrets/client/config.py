"""What a client is made with: who it is, where it asks, and for how long an answer holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from reconciler.errors import SettingsError
from reconciler.secrets.values import Secret
from reconciler.settings import read_secret
from reconciler.settings_values import parse_flag
from reconciler.spec.addresses import secret_host_fault

T = TypeVar("T")

DEFAULT_HOST = "https://app.infisical.com"
DEFAULT_TTL = 60
MAX_TTL = 3600
"""Seconds."""

SLUGS = ("dev", "staging", "prod")


@dataclass(frozen=True, slots=True)
class InfisicalConfig:
    """Checked when it is made; with `enabled=False`, the default, all else is ignored.

    `client_secret` may be given as a plain text and is held as a Secret, so that nothing here prints it.
    `cache_ttl` is in seconds; 0: nothing is served from memory. Raises SettingsError with all that is wrong.
    """

    enabled: bool = False
    host: str = DEFAULT_HOST
    project_id: str | None = None
    environment_slug: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = None
    cache_ttl: int = DEFAULT_TTL

    def __post_init__(self) -> None:
        given: object = self.client_secret
        if isinstance(given, str):
            object.__setattr__(self, "client_secret", Secret(given) if given else None)
        del given  # no plain text in a frame that an error goes through
        if problems := self._problems():
            raise SettingsError("\n".join(problems))

    def _problems(self) -> list[str]:
        enabled: object = self.enabled
        if not isinstance(enabled, bool):
            return ["enabled: give True or False, nothing that only counts as one of them"]
        if not enabled:
            return []
        problems = [
            f"{name}: it is needed where enabled is True"
            for name in ("project_id", "environment_slug", "client_id", "client_secret")
            if not getattr(self, name)
        ]
        if (fault := secret_host_fault(self.host)) is not None:
            problems.append(f"host: it {fault}")
        if self.environment_slug and self.environment_slug not in SLUGS:
            problems.append(f"environment_slug: {self.environment_slug!r} is none of {', '.join(SLUGS)}")
        ttl: object = self.cache_ttl
        if isinstance(ttl, bool) or not isinstance(ttl, int) or not 0 <= ttl <= MAX_TTL:
            problems.append(f"cache_ttl: give whole seconds, 0 to {MAX_TTL}")
        return problems

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "InfisicalConfig":
        """From variables, those of a process for example; an empty one counts as not set.

        INFISICAL_ENABLED, INFISICAL_HOST, INFISICAL_PROJECT_ID, INFISICAL_ENVIRONMENT (or
        INFISICAL_ENVIRONMENT_SLUG), INFISICAL_CLIENT_ID, INFISICAL_CLIENT_SECRET (or
        INFISICAL_CLIENT_SECRET_FILE with a file's path), INFISICAL_CACHE_TTL. Raises SettingsError.
        """
        if not _parsed(environ, "INFISICAL_ENABLED", parse_flag, False):
            return cls()
        return cls(
            enabled=True,
            host=environ.get("INFISICAL_HOST") or DEFAULT_HOST,
            project_id=environ.get("INFISICAL_PROJECT_ID") or None,
            environment_slug=_slug(environ),
            client_id=environ.get("INFISICAL_CLIENT_ID") or None,
            client_secret=read_secret(environ, "INFISICAL_CLIENT_SECRET"),
            cache_ttl=_parsed(environ, "INFISICAL_CACHE_TTL", _seconds, DEFAULT_TTL),
        )


def _slug(environ: Mapping[str, str]) -> str | None:
    names = ("INFISICAL_ENVIRONMENT", "INFISICAL_ENVIRONMENT_SLUG")
    found = {value for name in names if (value := environ.get(name))}
    if len(found) > 1:
        raise SettingsError(f"{names[0]} and {names[1]} are both set, and differ", hint="leave one out")
    return found.pop() if found else None


def _parsed(environ: Mapping[str, str], name: str, parse: Callable[[str], T], default: T) -> T:
    text = environ.get(name)
    if not text:
        return default
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {text!r} is not accepted; give {error}") from None


def _seconds(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"whole seconds, 0 to {MAX_TTL}")
    return int(text)
