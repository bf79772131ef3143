"""Whose the entries of a tree are on the primary, by name."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Final

import structlog

from agent.accounts import Lookups, Unanswered
from agent.errors import PathRefused
from agent.ownership import MAX_PAIRS, MAX_TEXT, NameRun, Names, gather, usable
from agent.scan import Found

log: structlog.stdlib.BoundLogger = structlog.get_logger()

AT_ONCE: Final = 256
"""Users, and groups, that are looked up again by one look; most trees have a handful. More take turns."""


class LocalNames:
    """What the users and groups of this machine are called. For any number of directories, from any thread.

    A number that had a name keeps the last one for as long as this lives, and is warned of once: some name
    services that cannot be asked say what they say of a number that nobody has. One of which nobody could say
    anything yet has no name for now, and is asked for again first.
    """

    def __init__(self, lookups: Lookups | None = None) -> None:
        self._lookups = Lookups() if lookups is None else lookups
        self._users = _Names("user", self._lookups.user_name)
        self._groups = _Names("group", self._lookups.group_name)
        self._lock = threading.Lock()
        self._changes = 0

    def of(self, found: Mapping[str, Found]) -> dict[str, Names]:
        """By path; blocks. A number is looked up once, and has that name until `look_again`."""
        with self._lock:
            users, groups = self._users, self._groups
            return {path: (users.of(there.uid), groups.of(there.gid)) for path, there in found.items()}

    def unanswered(self, found: Mapping[str, Found]) -> str:
        """Why there is no saying what one of these owners or groups is called; empty where there is."""
        with self._lock:
            users, groups = self._users.unanswered, self._groups.unanswered
            if not users and not groups:
                return ""
            why = (users.get(there.uid) or groups.get(there.gid) for there in found.values())
            return next(filter(None, why), "")

    def look_again(self) -> int:
        """Look up again what is known; blocks. How often names that were given out have changed by now."""
        with self._lock:
            self._lookups.renew()
            self._changes += self._users.look_again() + self._groups.look_again()
            return self._changes


def owned_by(found: Mapping[str, Found], local: LocalNames) -> tuple[tuple[NameRun, ...], tuple[str, ...]]:
    """The names of owners and groups, in the order of the paths, and warnings; blocks.

    A number that has no name here, or none that can be sent, is nobody's: it stays so on the hosts.
    """
    names = local.of({path: there for path, there in found.items() if there.kind != "other"})
    pairs = set(names.values())
    if len(pairs) > MAX_PAIRS or sum(len(owner) + len(group) for owner, group in pairs) > MAX_TEXT:
        raise PathRefused(
            f"the tree has {len(pairs)} pairs of owner and group, which is more than can be sent",
            hint="set sync.owners: none",
        )
    nameless = sum(not owner or not group for owner, group in names.values())
    of = "1 entry" if nameless == 1 else f"{nameless} entries"
    warnings = [f"an owner or a group has no name here: of {of}"] if nameless else []
    if nameless and (why := local.unanswered(found)):
        warnings.append(
            f"owners or groups may have names that cannot be looked up, which is tried again: {why}"
        )
    return gather(sorted(names), names), tuple(warnings)


class _Names:
    """Of all users, or of all groups, by number; "" for one that has none that can be sent."""

    def __init__(self, kind: str, look_up: Callable[[int], str | None]) -> None:
        self._kind = kind
        self._look_up = look_up
        self._known: dict[int, str] = {}
        self._gone: set[int] = set()
        """Numbers that keep the name they had."""
        self.unanswered: dict[int, str] = {}
        """Numbers of which nobody could say anything yet, and why."""

    def of(self, number: int) -> str:
        name = self._known.get(number)
        if name is None:
            name = ""
            try:
                name = self._now(number) or ""
            except Unanswered as error:
                self.unanswered[number] = str(error)
            self._known[number] = name
        return name

    def look_again(self) -> int:
        """How many have another name now."""
        changed = 0
        for number in list(islice(dict.fromkeys([*self.unanswered, *self._known]), AT_ONCE)):
            before = self._known.pop(number)  # so that it is put behind those whose turn is next
            now = None
            with suppress(Unanswered):
                now = self._now(number)
                # To be known to have none is another thing than not to be known.
                changed += self.unanswered.pop(number, None) is not None and not now
            if now is None and before and number not in self._gone:
                self._gone.add(number)
                log.warning(
                    f"a {self._kind} has no name any more, or none can be looked up; it keeps the last one",
                    number=number,
                    name=before,
                )
            elif now is not None:
                self._gone.discard(number)
            name = self._known[number] = before if now is None else now
            changed += name != before
        return changed

    def _now(self, number: int) -> str | None:
        """None where there is none, as far as can be known; raises Unanswered."""
        name = self._look_up(number)
        return name if name is None or usable(name) else ""
