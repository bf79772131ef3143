"""What this host allows, whatever a primary asks for; `agent/settings.py` reads it from agent.toml."""

from collections.abc import Mapping

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
