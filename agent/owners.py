"""Owners of what is placed: by name, and only those that this host allows."""

import errno
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from agent.accounts import SERVICES, Lookups, Unanswered
from agent.failures import TaskFailed
from agent.ownership import NameRun, Names
from agent.scan import Found

UNCHANGED = -1
"""What `chown` takes for "leave it"."""

NOBODYS = (UNCHANGED, UNCHANGED)

Ids = tuple[int, int]
"""User and group, as numbers of this host; UNCHANGED for a name that is not used."""

_CAP_CHOWN = 1 << 0
_NAMED = 5
"""Reasons that a warning names; there may be as many as names."""


class _Known:
    """What the names of users, or of groups, come to; each is looked up once. `role` is what one is here."""

    def __init__(
        self,
        kind: str,
        role: str,
        look_up: Callable[[str], int | None],
        own: int,
        allowed: Collection[str],
    ) -> None:
        self._kind = kind
        self._role = role
        self._look_up = look_up
        self._own = own
        self._allowed = allowed
        self._known: dict[str, int | str] = {"": UNCHANGED}

    def of(self, name: str) -> int | str:
        """An id, or why the name is not used."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._find(name)
        return known

    def _find(self, name: str) -> int | str:
        try:
            found = self._look_up(name)
        except Unanswered as error:
            if name in self._allowed:
                raise TaskFailed("Busy", str(error), hint=SERVICES) from error
            found = UNCHANGED  # whatever its number is: it would not be used
        if found is None:
            return f"there is no {self._kind} {name!r} on this host, and the name is not used"
        if name in self._allowed or found == self._own:
            return found
        return f"{self._role} {name!r} is not among this host's owners and is not used"


class Owners:
    """What names come to on this host; each is looked up once. All that looks one up blocks, and raises
    TaskFailed where the host does not say whether it has a name that it allows.

    An empty name, one that the host's own `owners` does not list and one that does not exist are not used:
    the file stays whose it is, and a new one is the agent's user's. An unknown name never becomes another
    user, root least of all, and none is taken for a number. The agent's own user and group are always
    allowed.
    """

    def __init__(
        self, allowed: Collection[str], *, may_give: bool | None = None, lookups: Lookups | None = None
    ) -> None:
        """`may_give`: whether the agent's user may give files away; None: as the system says."""
        self._may_give = _may_give_files() if may_give is None else may_give
        self._own_user = os.geteuid()
        self._own_groups = {os.getegid(), *os.getgroups()}
        lookups = Lookups() if lookups is None else lookups
        self._users = _Known("user", "owner", lookups.user_id, self._own_user, allowed)
        self._groups = _Known("group", "group", lookups.group_id, os.getegid(), allowed)
        self._ids: dict[Names, Ids] = {}

    def found(self, owner: str, group: str) -> tuple[int | str, int | str]:
        """The ids of a user and a group, UNCHANGED for an empty name, or why a name is not used."""
        return self._users.of(owner), self._groups.of(group)

    def ids(self, names: Names) -> Ids:
        """What is to be given to an entry whose owner and group have these names."""
        ids = self._ids.get(names)
        if ids is None:
            ids = self._ids[names] = self._ids_of(*names)
        return ids

    def _ids_of(self, owner: str, group: str) -> Ids:
        uid, gid = self.found(owner, group)
        # Without the right to give files away they are the agent's user's, and of one of that user's groups.
        return (
            uid if isinstance(uid, int) and self._may_give else UNCHANGED,
            gid if isinstance(gid, int) and (self._may_give or gid in self._own_groups) else UNCHANGED,
        )

    def differs(self, names: Names, found: Found) -> bool:
        """Whether something that was found has to be given to another owner or group."""
        uid, gid = self.ids(names)
        if not self._may_give and found.uid != self._own_user:
            return False
        return uid not in (UNCHANGED, found.uid) or gid not in (UNCHANGED, found.gid)

    def differing(self, found: Mapping[str, Found], names: Mapping[str, Names]) -> dict[str, bool]:
        """Paths of what has to be given to another owner or group; and whether it has other names elsewhere,
        which would be given away with it."""
        return {
            path: there.nlink > 1 and there.kind == "file"
            for path, pair in names.items()
            if (there := found.get(path)) is not None and self.differs(pair, there)
        }

    def wanted(self, names: Mapping[str, Names]) -> dict[str, Ids]:
        """By path, what is to be given to whom."""
        return {path: ids for path, pair in names.items() if (ids := self.ids(pair)) != NOBODYS}

    def resolved(self, runs: Iterable[NameRun]) -> tuple[tuple[str, str, int, int], ...]:
        """Each pair of names, and what it comes to now."""
        pairs = sorted({(owner, group) for _, owner, group in runs})
        return tuple((owner, group, *self.ids((owner, group))) for owner, group in pairs)

    def warning(self, runs: Iterable[NameRun]) -> str:
        """One line about all entries whose owner or group is not used here; empty where there is none."""
        entries = 0
        why: dict[str, None] = {}
        for count, owner, group in runs:
            reasons = self._why_not(owner, group)
            entries += count if reasons else 0
            why |= dict.fromkeys(reasons)
        if not why:
            return ""
        named = [*list(why)[:_NAMED], *([f"and {len(why) - _NAMED} more names"] if len(why) > _NAMED else [])]
        what = "1 entry does" if entries == 1 else f"{entries} entries do"
        return f"{what} not get the owner or group of the source: {'; '.join(named)}"

    def _why_not(self, owner: str, group: str) -> list[str]:
        uid, gid = self.found(owner, group)
        reasons = [reason for reason in (uid, gid) if isinstance(reason, str)]
        if not self._may_give:
            if isinstance(uid, int) and uid not in (UNCHANGED, self._own_user):
                reasons.append(f"the agent's user may give nothing to {owner!r}: that takes CAP_CHOWN")
            if isinstance(gid, int) and gid != UNCHANGED and gid not in self._own_groups:
                reasons.append(f"the agent's user is not in the group {group!r}")
        return reasons


def _may_give_files() -> bool:
    try:
        status = Path("/proc/thread-self/status").read_text("ascii", errors="replace")
        effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
        return bool(int(effective.split()[1], 16) & _CAP_CHOWN)
    except (OSError, StopIteration, ValueError, IndexError):
        return os.geteuid() == 0


def give(fd: int, ids: Ids, path: str, *, opened: bool = True) -> None:
    """Gives an open file to its owner and group, where they are others; blocks.

    A descriptor that is not `opened`, only a path (O_PATH), may be a directory's or a symlink's too. Raises
    TaskFailed where that is not to be.
    """
    if ids == NOBODYS:
        return
    uid, gid = ids
    found = os.fstat(fd)
    if uid in (UNCHANGED, found.st_uid) and gid in (UNCHANGED, found.st_gid):
        return
    try:
        if opened:
            os.fchown(fd, uid, gid)
        else:
            os.chown(f"/proc/self/fd/{fd}", uid, gid)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        raise _refused(path, uid, gid, str(error.strerror)) from error
    now = os.fstat(fd)
    if uid not in (UNCHANGED, now.st_uid) or gid not in (UNCHANGED, now.st_gid):
        raise _refused(path, uid, gid, "the file system does not keep owners")


def _refused(path: str, uid: int, gid: int, why: str) -> TaskFailed:
    return TaskFailed(
        "PermissionDenied",
        f"{path!r} cannot be given to user {uid} and group {gid}: {why}",
        hint="take the name out of `owners` in agent.toml, or set sync.owners: none for the project",
    )


def resolve_owner(owner: str, group: str, allowed: Collection[str]) -> tuple[int, int, tuple[str, ...]]:
    """User id, group id and warnings for the names that a rendered file shall have; blocks."""
    owners = Owners(allowed, may_give=True)
    found = owners.found(owner, group)
    uid, gid = (each if isinstance(each, int) else UNCHANGED for each in found)
    return uid, gid, tuple(each for each in found if isinstance(each, str))
