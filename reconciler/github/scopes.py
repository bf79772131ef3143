"""Where secrets of GitHub Actions live, and what GitHub accepts there. Pure.

Paths are those of GitHub's REST API, version 2022-11-28 ("GitHub Actions secrets").
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

MAX_VALUE: Final = 48 * 1024
"""Bytes of one secret's value."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class RepositoryScope:
    """`repo` reads `owner/name`."""

    repo: str
    limit = 100
    """How many secrets GitHub keeps here."""

    @property
    def path(self) -> str:
        return f"/repos/{_repo(self.repo)}/actions/secrets"

    def __str__(self) -> str:
        return self.repo


@dataclass(frozen=True, slots=True)
class EnvironmentScope:
    """One of GitHub's own environments of a repository."""

    repo: str
    environment: str
    limit = 100

    @property
    def path(self) -> str:
        return f"/repos/{_repo(self.repo)}/environments/{quote(self.environment, safe='')}/secrets"

    def __str__(self) -> str:
        return f"{self.repo}, environment {self.environment}"


@dataclass(frozen=True, slots=True)
class OrganizationScope:
    org: str
    limit = 1000

    @property
    def path(self) -> str:
        return f"/orgs/{quote(self.org, safe='')}/actions/secrets"

    def __str__(self) -> str:
        return f"organisation {self.org}"


Scope = RepositoryScope | EnvironmentScope | OrganizationScope


@dataclass(frozen=True, slots=True)
class SecretMeta:
    """All that GitHub tells of a secret. `updated_at` is its own text, compared and never parsed."""

    name: str
    updated_at: str
    visibility: str | None = None


def name_fault(name: str) -> str | None:
    """Why GitHub takes no secret of this name; None where it does. It stores names in upper case."""
    if not _NAME.fullmatch(name):
        return "has other characters than letters, digits and _, or begins with a digit"
    return (
        "begins with GITHUB_, which GitHub keeps for itself" if name.upper().startswith("GITHUB_") else None
    )


def _repo(repo: str) -> str:
    return "/".join(quote(part, safe="") for part in repo.split("/"))
