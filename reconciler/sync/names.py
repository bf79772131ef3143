"""Whose the entries of a tree are on the primary, by name."""

import grp
import pwd
from collections.abc import Callable, Mapping

from agent.errors import PathRefused
from agent.ownership import MAX_PAIRS, MAX_TEXT, NameRun, gather, usable
from agent.scan import Found


def owned_by(found: Mapping[str, Found]) -> tuple[tuple[NameRun, ...], tuple[str, ...]]:
    """The names of owners and groups, in the order of the paths, and warnings; blocks.

    A number that has no name here, or none that can be sent, is nobody's: it stays so on the hosts.
    """
    users = _Names(lambda uid: pwd.getpwuid(uid).pw_name)
    groups = _Names(lambda gid: grp.getgrgid(gid).gr_name)
    sent = {path: there for path, there in found.items() if there.kind != "other"}
    names = {path: (users.of(there.uid), groups.of(there.gid)) for path, there in sent.items()}
    pairs = set(names.values())
    if len(pairs) > MAX_PAIRS or sum(len(owner) + len(group) for owner, group in pairs) > MAX_TEXT:
        raise PathRefused(
            f"the tree has {len(pairs)} pairs of owner and group, which is more than can be sent",
            hint="set sync.owners: none",
        )
    nameless = sum(not owner or not group for owner, group in names.values())
    of = "1 entry" if nameless == 1 else f"{nameless} entries"
    warnings = [f"an owner or a group has no name here: of {of}"] if nameless else []
    return gather(sorted(names), names), tuple(warnings)


class _Names:
    """Each number is looked up once."""

    def __init__(self, look_up: Callable[[int], str]) -> None:
        self._look_up = look_up
        self._known: dict[int, str] = {}

    def of(self, number: int) -> str:
        name = self._known.get(number)
        if name is None:
            try:
                name = self._look_up(number)
            except KeyError:
                name = ""
            self._known[number] = name = name if usable(name) else ""
        return name
