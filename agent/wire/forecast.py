"""What a sync would do at a target, path by path: the answer to a task that observes and itemises."""

import msgspec

from agent.wire.base import Message

CREATE = "create"
UPDATE = "update"
REPLACE = "replace"
MODE = "mode"
TIME = "time"
MODE_AND_TIME = "mode+time"
OWNER = "owner"
"""And what it may stand with: `owner+mode`, `owner+time`, `owner+mode+time`; where `owners` was agreed on."""
DELETE = "delete"
KEEP = "keep"
BACKUP = "backup"
STAY = "stay"
RENDER = "render"

DEEDS = {
    CREATE: "nothing is there",
    UPDATE: "a file has another content, or a symlink leads elsewhere",
    REPLACE: "something of another kind is there",
    MODE: "only the permission bits differ",
    TIME: "only the time differs",
    MODE_AND_TIME: "permission bits and time differ",
    OWNER: "only the owner or the group differs",
    f"{OWNER}+{MODE}": "owner or group and permission bits differ",
    f"{OWNER}+{TIME}": "owner or group and time differ",
    f"{OWNER}+{MODE_AND_TIME}": "owner or group, permission bits and time differ",
    DELETE: "the tree does not have it",
    KEEP: "a local edit stays, by policy",
    BACKUP: "a local edit that the tree does not have gets another name",
    STAY: "a directory that the tree does not have, and that something in it keeps",
    RENDER: "a rendered file differs or is missing",
}
"""What may be done at a path, and when. Unknown words are refused."""

MAX_ITEMS = 20_000
"""Paths that are listed; whatever else there is to do is only counted."""

MAX_TEXT = 4 * 1024 * 1024
"""Bytes of listed paths in all, for the same purpose."""

BATCH_BYTES = 256 * 1024


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What would be done at one path.

    `size` is a file's as it would be; `requested` and `reused` say where its bytes would come from: the
    primary, before compression, or files that the target holds. `saved`: what is there is a local edit and
    gets another name first. Names that are no UTF-8 are escaped.
    """

    deed: str
    path: str
    kind: str = "file"
    size: int = 0
    requested: int = 0
    reused: int = 0
    saved: bool = False


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """Why the sync would be refused, in the words in which it would fail."""

    reason: str
    message: str


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Over all that would be done, what is not listed included."""

    counts: dict[str, int] = msgspec.field(default_factory=dict)
    """By deed."""
    unlisted: int = 0
    """Paths of these that are in no list."""
    files_written: int = 0
    files_deleted: int = 0
    """Entries of all kinds."""
    bytes_requested: int = 0
    bytes_reused: int = 0
    foreign: int = 0
    foreign_deleted: int = 0
    """What trueup never placed and would delete, of all that it would. An older agent does not tell."""
    ignored: int = 0
    """What the task ignores or keeps apart and the target has."""
    local_edits: int = 0
    guards: tuple[Guard, ...] = ()
    after: tuple[str, ...] = ()
    """Commands that would run."""


class Forecast(Message, frozen=True, kw_only=True, tag="task_forecast"):
    """Agent to primary, before the report: a batch of what would be done, in the order of paths.

    `sums` come with the last batch alone.
    """

    task: str
    items: tuple[Item, ...] = ()
    sums: Sums | None = None
