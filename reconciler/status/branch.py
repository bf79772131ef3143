"""The status branch: read with its signature checked, written as one commit a change, none lost in a race.

The branch has its own root and holds nothing but status files. Reading and writing go through the mirror:
no network for reading, one push for a change. Whoever loses a race fetches, verifies and applies its
change anew to what the winner wrote.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from reconciler.errors import SettingsError, StatusContended, StatusRewound, StatusUnreadable, UnknownRevision
from reconciler.git.mirror import Mirror, TreeEntry
from reconciler.keys import MasterKey
from reconciler.status.conditions import bounded
from reconciler.status.documents import AnyDocument, Recorded
from reconciler.status.files import MAX_FILE, MAX_FILES, parse_document, render_changes
from reconciler.status.signature import signed_message, verify
from reconciler.tracing import current_causes

log: structlog.stdlib.BoundLogger = structlog.get_logger()

DEFAULT_BRANCH: Final = "trueup/status"
MAX_TRIES: Final = 16
"""Pushes of one change. A try is lost only when another writer's succeeded or is under way."""
MAX_LINES: Final = 50
"""Lines of a commit message."""
MAX_PAUSE: Final = 0.05
"""Seconds, times the number of lost tries: the longest pause before the next one, drawn at random."""


@dataclass(frozen=True, slots=True)
class _Tip:
    """A verified state of the branch. `commit` and `tree` are None before the first commit."""

    commit: str | None
    tree: str | None
    recorded: Recorded


class StatusBranch:
    """The status files of one installation, on `branch` of the mirror's repository.

    Use one object for each process and repository: it remembers what it verified and parsed, and it
    refuses a branch that was set back to before the newest commit it has seen. Without a key, as on a
    laptop, it reads without checking signatures and says so in the log, and does not write.
    """

    def __init__(self, mirror: Mirror, key: MasterKey | None, *, branch: str = DEFAULT_BRANCH) -> None:
        self._mirror = mirror
        self._key = key
        self._branch = branch
        self._ref = f"refs/heads/{branch}"
        self._tip = _Tip(None, None, Recorded())
        self._parsed: dict[str, tuple[str, AnyDocument]] = {}
        self._publishing = trio.Lock()
        self.permit: Callable[[], AbstractAsyncContextManager[object]] = nullcontext
        """Entered to write: raises where nothing may be recorded now."""

    async def read(self) -> Recorded:
        """Everything recorded, as the mirror's last refresh or our last push left it; no network.

        Empty where there is no such branch. Raises GitUnavailable if the repository was never fetched,
        KeyMismatch, StatusRewound, StatusUnreadable.
        """
        return (await self._load()).recorded

    @property
    def known(self) -> Recorded:
        """What was last read or published here; it waits for nothing."""
        return self._tip.recorded

    @property
    def known_commit(self) -> str | None:
        """The commit that `known` is from; None before the first one."""
        return self._tip.commit

    async def publish(self, change: Callable[[Recorded], Recorded], message: str) -> str | None:
        """Records what `change` makes of what is recorded; the id of the commit, None if nothing changed.

        `change` is pure: on a race it is called again with what the other writer recorded. Raises what
        `read` raises, StatusContended after too many lost races, GitUnavailable and GitRefused from the push.
        """
        if self._key is None:
            raise SettingsError("status is only written with the master key", hint="see `trueup key`")
        async with self._publishing:
            for tries in range(MAX_TRIES):
                if tries:
                    await trio.sleep(random.uniform(0, MAX_PAUSE * tries))  # noqa: S311 - spreads writers
                    await self._mirror.refresh()
                tip = await self._load()
                after = change(tip.recorded)
                changes = await trio.to_thread.run_sync(render_changes, tip.recorded, after)
                if not changes:
                    return None
                async with self.permit():
                    tree = await self._mirror.write_tree(tip.commit, changes)
                    if tree == tip.tree:
                        return None
                    commit = await self._mirror.write_commit(
                        tree,
                        [] if tip.commit is None else [tip.commit],
                        signed_message(
                            _bounded_lines(message),
                            self._key,
                            tree=tree,
                            parent=tip.commit,
                            traces=current_causes(),
                        ),
                    )
                    if await self._mirror.push(self._ref, commit, expected=tip.commit):
                        self._tip = _Tip(commit, tree, after)
                        return commit
        raise StatusContended(
            f"other writers were faster {MAX_TRIES} times in a row at the status branch {self._branch}",
            hint="the next pass records what is still due; see that one primary only writes there",
        )

    async def _load(self) -> _Tip:
        """The branch as the mirror has it, verified and parsed; only what changed is looked at."""
        commit = (await self._mirror.refs()).heads.get(self._branch)
        known = self._tip
        if commit == known.commit:
            return known
        if commit is None:
            log.warning("the status branch was deleted; starting over", branch=self._branch)
            self._tip = _Tip(None, None, Recorded())
            return self._tip
        found = await self._mirror.commit_object(commit)
        if self._key is None:
            log.warning("read without the master key: signatures are not checked", branch=self._branch)
        else:
            verify(found, self._key, branch=self._branch)
        await self._require_progress(known.commit, commit)
        recorded = await self._parse(commit)
        if self._tip is not known:
            return await self._load()  # another task came first and may have seen a newer commit
        self._tip = _Tip(commit, found.tree, recorded)
        return self._tip

    async def _require_progress(self, old: str | None, new: str) -> None:
        """StatusRewound unless `new` contains `old`: an older state is signed as validly as a newer one."""
        if old is None:
            return
        try:
            if await self._mirror.is_ancestor(old, new):
                return
        except UnknownRevision:
            pass  # a fresh copy of the repository without `old`: `new` cannot contain it
        raise StatusRewound(
            f"the status branch {self._branch} went from {old[:12]} to {new[:12]}, which does not contain it",
            hint=f"push {old[:12]} back, or restart the primary if the older state is meant to count",
        )

    async def _parse(self, commit: str) -> Recorded:
        entries = await self._mirror.tree(commit)
        self._check(entries)
        wanted = [entry.path for entry in entries if self._cached(entry) is None]
        contents = await self._mirror.read_files(commit, wanted, max_size=MAX_FILE) if wanted else {}
        parsed = await trio.to_thread.run_sync(self._parse_new, entries, contents)
        self._parsed = parsed
        return Recorded().put(*(document for _, document in parsed.values()))

    def _parse_new(
        self, entries: Sequence[TreeEntry], contents: Mapping[str, bytes]
    ) -> dict[str, tuple[str, AnyDocument]]:
        parsed = {}
        for entry in entries:
            document = self._cached(entry)
            if document is None:
                document = parse_document(entry.path, contents[entry.path])
            parsed[entry.path] = (entry.oid, document)
        return parsed

    def _cached(self, entry: TreeEntry) -> AnyDocument | None:
        oid, document = self._parsed.get(entry.path, ("", None))
        return document if oid == entry.oid else None

    def _check(self, entries: Sequence[TreeEntry]) -> None:
        if len(entries) > MAX_FILES:
            raise StatusUnreadable(f"the status branch {self._branch} holds {len(entries)} files")
        for entry in entries:
            if entry.kind != "file":
                raise StatusUnreadable(f"{entry.path!r} on {self._branch} is a {entry.kind}, not a file")


def _bounded_lines(message: str) -> str:
    return "\n".join(bounded(line) for line in message.strip().split("\n")[:MAX_LINES]) or "Record status"
