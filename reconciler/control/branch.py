"""The control branch: operators' records, one file each, only ever appended to.

It has its own root in the spec repository. Reading goes through the mirror without network, and parses
only what is new. Whoever loses a race numbers their records anew behind the winner's. A branch that cannot
be read whole is an error: a hold that is not seen must never count as one that is not there.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import trio

from reconciler.control.files import MAX_FILE, MAX_NUMBER, number_of, parse_record, path_of, render_record
from reconciler.control.records import Record, describe
from reconciler.errors import ControlContended, ControlRewound, ControlUnreadable, UnknownRevision
from reconciler.git.mirror import Mirror, TreeEntry
from reconciler.status.conditions import bounded
from reconciler.status.documents import SUMMARY_ID, Recorded, Summary

DEFAULT_BRANCH: Final = "trueup/control"
MAX_TRIES: Final = 16
"""Pushes of one change. A try is lost only when another writer's succeeded or is under way."""
MAX_PAUSE: Final = 0.05
"""Seconds, times the number of lost tries: the longest pause before the next one, drawn at random."""

Records = tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Appended:
    """What was recorded, with its numbers, and the commit that did it."""

    commit: str
    records: Records


@dataclass(frozen=True, slots=True)
class _Tip:
    commit: str | None
    records: Records


class ControlBranch:
    """The operators' records of one installation, on `branch` of the mirror's repository.

    Use one object for each process: it remembers what it parsed, and refuses a branch that does not contain
    the newest commit it has seen.
    """

    def __init__(self, mirror: Mirror, *, branch: str = DEFAULT_BRANCH) -> None:
        self._mirror = mirror
        self._branch = branch
        self._ref = f"refs/heads/{branch}"
        self._tip = _Tip(None, ())
        self._parsed: dict[str, tuple[str, Record]] = {}
        self._appending = trio.Lock()

    @property
    def tip(self) -> str:
        """The commit that was read last; empty: there was no such branch."""
        return self._tip.commit or ""

    async def read_after(self, recorded: Recorded) -> Records:
        """As `read`: the status files say how much of it was seen."""
        known = recorded.summary or Summary(id=SUMMARY_ID)
        return await self.read(seen=known.control, commit=known.control_commit)

    async def read(self, *, seen: int = 0, commit: str = "") -> Records:
        """All records in the order of their numbers, as the mirror's last refresh or our last push left them.

        Empty where there is no such branch. `seen`: the number of the newest record that anybody is known to
        have seen, `commit`: the commit of the branch that they saw. Raises ControlUnreadable,
        ControlRewound, GitUnavailable if nothing was ever fetched.
        """
        loaded = await self._load()
        records = loaded.records
        if commit and commit != loaded.commit:
            # Also after a restart: records that were replaced by as many others are not the same decisions.
            await self._require_progress(commit, loaded.commit)
        if len(records) < seen:
            raise ControlRewound(
                f"{self._branch} ends with record {len(records)}, and a pass has seen record {seen} already",
                hint=f"push the commits that are missing back to {self._branch}, from a clone that has them",
            )
        return records

    async def append(
        self, make: Callable[[Records], Sequence[Record]], *, author: str, seen: int = 0
    ) -> Appended:
        """Records what `make` makes of what is recorded, as one commit of `author` (`Name <email>`).

        `make` is pure, and may refuse by raising: on a race it is called again with what the other writer
        recorded. The numbers of its records are given here. Raises what `read` raises, ControlContended after
        too many lost races, GitUnavailable and GitRefused from the push.
        """
        async with self._appending:
            for tries in range(MAX_TRIES):
                if tries:
                    await trio.sleep(random.uniform(0, MAX_PAUSE * tries))  # noqa: S311 - spreads writers
                    await self._mirror.refresh()
                known = await self.read(seen=seen)
                tip = self._tip
                new = tuple(
                    msgspec.structs.replace(record, number=number)
                    for number, record in enumerate(make(known), start=len(known) + 1)
                )
                files = {path_of(record.number): render_record(record) for record in new}
                for path, content in files.items():
                    parse_record(path, content)  # what could not be read again would stop every pass
                tree = await self._mirror.write_tree(tip.commit, files)
                parents = [] if tip.commit is None else [tip.commit]
                commit = await self._mirror.write_commit(tree, parents, _message(new), author=author)
                if await self._mirror.push(self._ref, commit, expected=tip.commit):
                    return Appended(commit, new)
        raise ControlContended(
            f"other writers were faster {MAX_TRIES} times in a row at the branch {self._branch}",
            hint="nothing is recorded; try again",
        )

    async def _load(self) -> _Tip:
        """The branch as the mirror has it; only what changed is looked at."""
        commit = (await self._mirror.refs()).heads.get(self._branch)
        known = self._tip
        if commit == known.commit:
            return known
        await self._require_progress(known.commit, commit)
        assert commit is not None  # one that is gone made no progress
        entries = await self._mirror.tree(commit)
        self._check(entries)
        wanted = [entry.path for entry in entries if self._cached(entry) is None]
        contents = await self._mirror.read_files(commit, wanted, max_size=MAX_FILE) if wanted else {}
        parsed = await trio.to_thread.run_sync(self._parse_new, entries, contents)
        if self._tip is not known:
            return await self._load()  # another task came first and may have seen a newer commit
        self._parsed = parsed
        self._tip = _Tip(commit, tuple(record for _, record in parsed.values()))
        return self._tip

    async def _require_progress(self, old: str | None, new: str | None) -> None:
        """ControlRewound unless `new` contains `old`."""
        if old is None:
            return
        hint = f"push {old[:12]} back to {self._branch}, from a clone that has it"
        if new is None:
            raise ControlRewound(f"{self._branch} was deleted", hint=hint)
        try:
            if await self._mirror.is_ancestor(old, new):
                return
        except UnknownRevision:
            pass  # a fresh copy of the repository without `old`: `new` cannot contain it
        raise ControlRewound(
            f"{self._branch} went from {old[:12]} to {new[:12]}, which does not contain it", hint=hint
        )

    def _parse_new(
        self, entries: Sequence[TreeEntry], contents: Mapping[str, bytes]
    ) -> dict[str, tuple[str, Record]]:
        """By path in the order of the numbers."""
        parsed = {}
        for entry in entries:
            record = self._cached(entry)
            if record is None:
                record = parse_record(entry.path, contents[entry.path])
            parsed[entry.path] = (entry.oid, record)
        return parsed

    def _cached(self, entry: TreeEntry) -> Record | None:
        oid, record = self._parsed.get(entry.path, ("", None))
        return record if oid == entry.oid else None

    def _check(self, entries: Sequence[TreeEntry]) -> None:
        """ControlUnreadable unless these are the records 1, 2, 3 and so on, and nothing else."""
        if len(entries) > MAX_NUMBER:
            raise ControlUnreadable(f"{self._branch} holds {len(entries)} files")
        for number, entry in enumerate(entries, start=1):
            if entry.kind != "file":
                raise ControlUnreadable(f"{entry.path!r} on {self._branch} is a {entry.kind}, not a file")
            if number_of(entry.path) != number:
                raise ControlUnreadable(
                    f"{self._branch} has {entry.path} and no {path_of(number)}",
                    hint="put the one that is missing back, or give the others its number",
                )


def _message(records: Sequence[Record]) -> str:
    lines = [bounded(describe(record), 200) for record in records]
    reasons = dict.fromkeys(bounded(record.reason) for record in records if record.reason)
    subject = lines[0] if len(lines) == 1 else f"{lines[0]} and {len(lines) - 1} more"
    body = ["\n".join(lines)] if len(lines) > 1 else []
    return "\n\n".join([subject, *body, *reasons]) + "\n"
