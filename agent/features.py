"""What this agent can do beyond the base protocol, and makes use of where a primary offers it."""

from agent.wire.bulk import PIECES
from agent.wire.messages import DEFLATE, NO_TIMES, OWNERS, Task

FEATURES = (DEFLATE, PIECES, NO_TIMES)
"""The features that this agent makes use of."""


def agreed(task: Task) -> tuple[str, ...]:
    """The features that a transfer for `task` makes use of."""
    return tuple(feature for feature in FEATURES if feature in task.features)


def times_count(task: Task) -> bool:
    """Whether the times of a task's tree are to be placed."""
    return NO_TIMES not in task.features


def owners_of(task: Task) -> bytes:
    """The digest of the owners that a task is to see to; empty where they do not count."""
    return task.owners if OWNERS in task.features and not task.ignore_permissions else b""
