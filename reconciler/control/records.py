"""One decision of an operator, as it stands in a file of the control branch. Pure.

Records are only ever appended and never changed: who decided what, when and why. Their numbers, from 1 and
without gaps, are their order.
"""

from typing import Final, Literal

import msgspec

from reconciler.status.conditions import Moment

Kind = Literal[
    "hold",
    "unhold",
    "approve",
    "freeze",
    "unfreeze",
    "suspend",
    "resume",
    "override",
    "promote",
    "hotfix",
    "rollback",
    "release",
    "revoke",
    "node-rollback",
    "node-unroll",
]

REQUESTS: Final = frozenset({"promote", "hotfix", "rollback", "release"})
"""Kinds that ask for another release of a unit in an environment."""


class Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One decision. Fields that a kind has no use for are empty."""

    number: int = 0
    """0: none yet. It stands in the name of the file alone."""
    kind: Kind
    by: str
    """`Name <email>`."""
    at: Moment
    reason: str = ""
    environment: str = ""
    unit: str = ""
    """Empty: every unit of the environment; never empty where another release is asked for."""
    resource: str = ""
    """What is suspended or resumed: an id such as `services/production/web`, or `services/web`; node-rollback
    and node-unroll: the id of a sync target."""
    tag: str = ""
    """promote, approve, and release where releases are promoted: the tag in the environment that is promoted
    from; rollback: the one to return to; hotfix: an existing tag, or empty."""
    commit: str = ""
    """The commit that is meant: of promote, approve, hotfix and release."""
    source: str = ""
    """promote, and release where releases are promoted: the environment that is promoted from."""
    bump: Literal["", "patch", "minor", "major"] = ""
    """release: which number is raised."""
    drop_hotfix: bool = False
    """promote: also where the commits of a hotfix would be lost."""
    token_key: str = ""
    """revoke: the public half of the token that is taken back; empty: whatever token the node has."""
    tree: str = ""
    """node-rollback: the digest of the tree of the release that a target keeps, and is switched to."""
    revision: str = ""
    """node-rollback: what that release was made from."""
    until: Moment | None = None
    """override: when closed windows count again."""


def describe(record: Record) -> str:
    """The decision on one line, without who and why: for a commit's subject and for people."""
    words: list[str] = [record.kind]
    if record.unit:
        words += [record.unit, "in" if record.kind != "promote" else "to", record.environment]
    elif record.environment or record.resource:
        words.append(record.environment or record.resource)
    if record.source:
        words += ["from", record.source]
    what = " at ".join(word for word in (record.tag, record.commit[:12]) if word)
    if record.tree:
        what = f"to {record.revision or record.tree[:12]}"
    if record.until is not None:
        what = f"until {record.until:%Y-%m-%d %H:%M:%S} UTC"
    options = [f"bump {record.bump}"] if record.bump else []
    options += ["dropping the hotfix"] if record.drop_hotfix else []
    line = " ".join(words) + (f": {what}" if what else "")
    return ", ".join([line, *options])
