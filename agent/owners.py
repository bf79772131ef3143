"""Owners of rendered files: by name, and only those that this host allows."""

import grp
import os
import pwd
from collections.abc import Collection

UNCHANGED = -1
"""What `chown` takes for "leave it"."""


def resolve_owner(owner: str, group: str, allowed: Collection[str]) -> tuple[int, int, tuple[str, ...]]:
    """User id, group id and warnings for the names a primary asked for; blocks.

    An empty name, one that the host's own `owners` does not list and one that does not exist leave
    the file to the agent's user: an unknown name never becomes another user, root least of all. The
    agent's own user and group are always allowed.
    """
    warnings: list[str] = []
    uid = gid = UNCHANGED
    if owner:
        try:
            found_uid = pwd.getpwnam(owner).pw_uid
        except (KeyError, ValueError):
            warnings.append(f"there is no user {owner!r} on this host; the agent's own user is used")
        else:
            if owner in allowed or found_uid == os.geteuid():
                uid = found_uid
            else:
                warnings.append(f"owner {owner!r} is not among this host's owners and is not used")
    if group:
        try:
            found_gid = grp.getgrnam(group).gr_gid
        except (KeyError, ValueError):
            warnings.append(f"there is no group {group!r} on this host; the agent's own group is used")
        else:
            if group in allowed or found_gid == os.getegid():
                gid = found_gid
            else:
                warnings.append(f"group {group!r} is not among this host's owners and is not used")
    return uid, gid, tuple(warnings)
