"""What this agent can do beyond the base protocol, and makes use of where a primary offers it."""

from agent.wire.bulk import PIECES
from agent.wire.messages import DEFLATE, Task

FEATURES = (DEFLATE, PIECES)
"""The features that this agent makes use of."""


def agreed(task: Task) -> tuple[str, ...]:
    """The features that a transfer for `task` makes use of."""
    return tuple(feature for feature in FEATURES if feature in task.features)
