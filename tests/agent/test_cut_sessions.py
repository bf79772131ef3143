"""A session cut after each of its bytes, in both directions: old or new content, and a retry completes it."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import trio

from agent.wire.connection import Role
from agent.wire.messages import RUNS, TaskReport
from reconciler.sync import streamed
from reconciler.sync.serving import TreeSource
from tests.agent.inthread import without_threads
from tests.agent.memorysession import Cut, session_task
from tests.agent.streams import STREAMED
from tests.agent.syncing import Host, read_tree
from tests.agent.upheaval import POLICY, RENDERED, FirstCopy, Upheaval, growing_of

LANES = 8
"""Hosts at once: most of the time of a task of this size goes by while it waits for the clock."""

INDEX_BYTES = 2_000
"""A part of a streamed copy that has most of the index, but for large files among the first."""

speakers = pytest.mark.parametrize("speaker", list(Role), ids=lambda role: role.value)


class Lane:
    """Cuts on one host after the other, all from the same beginning."""

    def __init__(self, scene: Upheaval, source: TreeSource) -> None:
        self._scene = scene
        self._source = source

    @classmethod
    async def open(cls, where: Path) -> "Lane":
        scene = Upheaval(where, durability="none")
        return cls(scene, await TreeSource.build(scene.new, reserved=[file.path for file in RENDERED]))

    async def whole(self) -> dict[Role, int]:
        """How many bytes go each way where nothing is cut."""
        host = await self._scene.host()
        whole = Cut()
        report = await session_task(self._source, host, whole, **self._scene.policy)
        assert report is not None
        assert report.state == "SUCCESS"
        await self._scene.retry(host, "whole")
        shutil.rmtree(host.base)
        return whole.sent

    async def cut(self, speaker: Role, after: int) -> bool:
        """Whether the target had changed by then."""
        host = await self._scene.host()
        before = read_tree(host.target)
        cut = Cut(speaker, after)
        assert await session_task(self._source, host, cut, **self._scene.policy) is None
        assert cut.sent[speaker] == after
        changed = read_tree(host.target) != before
        await self._scene.retry(host, (speaker, after))
        shutil.rmtree(host.base)
        return changed


@speakers
async def test_cut_after_any_byte(
    in_memory: Path, speaker: Role, exhaustive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exhaustive:  # else with threads, as in the field, which takes much longer
        without_threads(monkeypatch)
    lanes = [await Lane.open(in_memory / str(number)) for number in range(LANES)]
    total = (await lanes[0].whole())[speaker]
    assert total > 200
    cuts: Counter[bool] = Counter()

    async def cut_all(lane: Lane, afters: range) -> None:
        for after in afters:
            cuts[await lane.cut(speaker, after)] += 1

    async with trio.open_nursery() as nursery:
        for number, lane in enumerate(lanes):
            nursery.start_soon(cut_all, lane, range(number, total, LANES))
    assert cuts.total() == total
    assert cuts[True] > 0


async def streamed_copy(scene: FirstCopy, host: Host, cut: Cut) -> TaskReport | None:
    growing = await growing_of(scene.new)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(growing.run)
        return await session_task(growing.source, host, cut, features=(RUNS, *STREAMED), **POLICY)


@speakers
async def test_a_first_copy_that_is_streamed_is_cut(
    in_memory: Path, speaker: Role, exhaustive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At bytes all over it, and again where most of the index goes by; contents are too many to try each."""
    monkeypatch.setattr(streamed, "PORTION_FILES", 1)
    scene = FirstCopy(in_memory)
    host, whole = await scene.host(), Cut()
    report = await streamed_copy(scene, host, whole)
    assert report is not None
    assert report.state == "SUCCESS"
    await scene.retry(host, "whole")
    total, cuts = whole.sent[speaker], 500 if exhaustive else 20
    assert total > 200
    afters = {at * part // cuts for part in (total, min(total, INDEX_BYTES)) for at in range(cuts)}
    for after in sorted(afters):
        shutil.rmtree(host.base)
        host, cut = await scene.host(), Cut(speaker, after)
        report = await streamed_copy(scene, host, cut)
        # When parts of the index come decides how blocks are asked for, so a copy may end before the cut.
        assert (report is None) == (cut.sent[speaker] == after)
        await scene.retry(host, (speaker, after))
