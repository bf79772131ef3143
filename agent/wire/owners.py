"""The message by which the owners and groups of a tree are told, by name."""

from agent.wire.base import Message

OWNERS = "owners"
"""Feature: the primary tells the names of the owner and the group of each entry of the index."""


class IndexOwners(Message, frozen=True, kw_only=True, tag="index_owners"):
    """Primary to agent, where `owners` was agreed on, before `IndexEnd`: a batch of whose the entries are.

    `names` adds pairs of owner and group to those of the batches before; an empty name is one that the
    primary does not know. `runs` goes on through the entries of the whole index in path order, those that are
    not sent included: so many entries, and the number of the pair that they have.
    """

    task: str
    names: tuple[tuple[str, str], ...] = ()
    runs: tuple[tuple[int, int], ...] = ()
