"""From the page's data to its HTML, by templates that escape whatever they print."""

import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from reconciler.web.page.model import Page

if TYPE_CHECKING:
    from jinja2 import Environment

TITLES: Final[Mapping[str, str]] = {
    "overview": "Overview",
    "environments": "Environments",
    "services": "Services",
    "nodes": "Nodes",
    "projects": "Projects",
    "tasks": "Tasks",
    "history": "History",
    "events": "Events",
    "sources": "Secrets",
}
"""The sections of the page, by the id that each has in it."""

SLOT: Final = f"slot-{secrets.token_hex(16)}"
"""Stands in sections for the token of a session, so that they are rendered once for all sessions."""


@dataclass(frozen=True, slots=True)
class Section:
    id: str
    digest: str
    html: str

    def for_session(self, csrf: str) -> str:
        """As one session gets it, its own token in every form. `csrf` holds nothing that HTML would read."""
        return self.html.replace(SLOT, csrf)


def sections(page: Page, deeds: Collection[str]) -> tuple[Section, ...]:
    """All of them. `deeds`: what may be done, by the names that forms have for it."""
    return tuple(_section(id, title, page, deeds) for id, title in TITLES.items())


def _section(id: str, title: str, page: Page, deeds: Collection[str]) -> Section:
    inner = render(f"{id}.html", page=page, deeds=deeds, csrf=SLOT)
    digest = hashlib.sha256(inner.replace(SLOT, "").encode()).hexdigest()[:16]
    opened = Markup('<section id="{}" data-digest="{}" aria-label="{}">').format(id, digest, title)
    return Section(id, digest, f"{opened}{inner}</section>")


def render(template: str, **context: Any) -> str:
    """One template; every value that it prints is escaped."""
    return _environment().get_template(template).render(context)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("reconciler.web.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = _clock
    environment.filters["shorthash"] = _short_hash
    return environment


def _clock(stamp: str) -> str:
    """`2026-11-26T04:42:00Z` for people; what is no time stays as it is."""
    try:
        return f"{datetime.fromisoformat(stamp):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return stamp


def _short_hash(text: str) -> str:
    """The beginning of both parts of a config hash, `v1:<key>:<public>:<keyed>`."""
    parts = text.split(":")
    return ":".join(part[:8] for part in parts[-2:])
