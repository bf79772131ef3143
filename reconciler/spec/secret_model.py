"""Where secrets come from and go to, as parts of the frozen model: see `model.py`, which has them all."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts: immutable, by keyword, no unknown fields."""


# --- credentials -------------------------------------------------------------------------------


class EnvCredential(Model, frozen=True, kw_only=True, tag="env", tag_field="from"):
    """A variable of the primary's environment (`NAME_FILE` is honoured too)."""

    name: str


class FileCredential(Model, frozen=True, kw_only=True, tag="file", tag_field="from"):
    """A file on the primary; a trailing newline is not part of the value."""

    path: str


class SecretCredential(Model, frozen=True, kw_only=True, tag="secret", tag_field="from"):
    """A key of another secret source."""

    source: str
    key: str


Credential = EnvCredential | FileCredential | SecretCredential


# --- secrets -----------------------------------------------------------------------------------


class InfisicalSettings(Model, frozen=True, kw_only=True, tag="infisical", tag_field="kind"):
    host: str = "https://app.infisical.com"
    project_id: str
    environment_slug: str
    secret_path: str = "/"  # noqa: S105 - a folder in Infisical
    recursive: bool = False
    tags: tuple[str, ...] = ()
    auth: Literal["universal", "token", "oidc"] = "universal"
    client_id: Credential | None = None
    client_secret: Credential | None = None
    token: Credential | None = None
    identity_id: Credential | None = None
    jwt: Credential | None = None


class EnvFileSettings(Model, frozen=True, kw_only=True, tag="env_file", tag_field="kind"):
    file: str
    """On the primary; a relative path starts at the primary's working directory."""


class EnvironSettings(Model, frozen=True, kw_only=True, tag="environ", tag_field="kind"):
    keys: tuple[str, ...]
    """The primary's own variables that may be read; there is no way to name all."""


class AgeSettings(Model, frozen=True, kw_only=True, tag="age", tag_field="kind"):
    file: str
    repository: str | None = None
    identity: Credential
    format: Literal["dotenv", "yaml"] = "dotenv"


SOPS_TYPES: Final[Mapping[str, str]] = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".env": "dotenv",
    ".ini": "ini",
}
"""How a file's name ends, and what sops calls such a file."""


class SopsSettings(Model, frozen=True, kw_only=True, tag="sops", tag_field="kind"):
    file: str
    repository: str | None = None


class GithubActionsSettings(Model, frozen=True, kw_only=True, tag="github_actions", tag_field="kind"):
    repo: str
    token: Credential
    export_event: str = "export-secret"
    org_fallback: bool = False


SourceSettings = (
    InfisicalSettings | EnvFileSettings | EnvironSettings | AgeSettings | SopsSettings | GithubActionsSettings
)


class SecretSource(Model, frozen=True, kw_only=True):
    """What all kinds have in common; `settings` holds what is the kind's own."""

    name: str
    kind: str
    enabled: bool = True
    environments: tuple[str, ...] = ()
    """The environments it may serve; empty: all."""
    cache_ttl: float = 300.0
    refresh_interval: float = 300.0
    max_stale: float = 86400.0
    fallback: tuple[str, ...] = ()
    settings: SourceSettings


class TargetKey(Model, frozen=True, kw_only=True):
    key: str
    name: str


class SecretTarget(Model, frozen=True, kw_only=True):
    name: str
    kind: Literal["github_actions"]
    repo: str | None = None
    org: str | None = None
    environment: str | None = None
    visibility: Literal["all", "private", "selected"] | None = None
    selected_repositories: tuple[str, ...] = ()
    token: Credential | None = None
    source: str
    """The source named by the document's `from`."""
    keys: tuple[TargetKey, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    prune: Literal["never", "owned"] = "never"
    timeout: float = 30.0


class SecretUse(Model, frozen=True, kw_only=True):
    """One entry of a `secrets:` list. No keys: all that the source has."""

    source: str
    keys: tuple[str, ...] = ()
    prefix: str = ""
    rename: dict[str, str] = {}
