"""Which resources somebody means who names a kind, a resource, or a part of its path. Pure."""

import difflib
from dataclasses import dataclass
from typing import Final

from reconciler.errors import SettingsError

KINDS: Final = ("services", "projects", "nodes", "environments", "secrets", "targets", "summary")


@dataclass(frozen=True, slots=True)
class Selection:
    """`service/web` is `services`, `web`: what has that name in its path; without a name all of the kind."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}".rstrip("/")

    def has(self, resource: str) -> bool:
        """Whether it means the resource of this id, such as `services/staging/web`."""
        kind, *path = resource.split("/")
        if kind != self.kind:
            return False
        return not self.name or resource.startswith(f"{self}/") or resource == str(self) or self.name in path


def selection(text: str) -> Selection:
    """What a KIND or a KIND/NAME means; kinds may be in the singular."""
    kind, _, name = text.strip("/").partition("/")
    return Selection(next((plural for plural in KINDS if kind == plural.removesuffix("s")), kind), name)


def known_selection(text: str) -> Selection:
    """The same; SettingsError for a kind that nothing is of."""
    found = selection(text)
    if found.kind not in KINDS:
        near = difflib.get_close_matches(found.kind, KINDS, 1)
        raise SettingsError(
            f"{text}: there is no kind {found.kind}",
            hint=f"did you mean {near[0]}?" if near else f"give one of {', '.join(KINDS)}, and a name",
        )
    return found
