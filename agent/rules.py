"""What this host allows, whatever a primary asks for; `agent/settings.py` reads it from agent.toml."""

import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

GIB = 1024 * 1024 * 1024


class AgentRules(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's own limits: a task that goes beyond one of them is refused as a whole.

    `roots` are absolute directories; only below them may a target lie. `owners` are the users and
    groups, by name, that files may be given to. `commands` maps each name that a task's
    `after` may use to the argument list that is run, without a shell. `private` are the agent's own
    files and directories (configuration, keys, records), which no task may touch wherever the roots
    are. Sizes are bytes, times seconds.
    """

    roots: tuple[str, ...]
    private: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    commands: Mapping[str, tuple[str, ...]] = {}
    max_file_size: int = 64 * GIB
    max_total_size: int = 1024 * GIB
    max_entries: int = 2_000_000
    command_timeout: float = 300.0


def why_no_root(root: str) -> str | None:
    """Why nothing can be placed below a root as it is now, in words; None where it is a directory."""
    try:
        mode = Path(root).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"the root {root} does not exist"
    except OSError as error:
        return f"the root {root} cannot be looked at: {error.strerror}"
    return None if stat.S_ISDIR(mode) else f"the root {root} is not a directory"
