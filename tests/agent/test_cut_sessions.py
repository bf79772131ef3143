"""A session cut after each of its bytes, in both directions: old or new content, and a retry completes it."""

import shutil
from pathlib import Path

import pytest

from agent.wire.connection import Role
from reconciler.sync.serving import TreeSource
from tests.agent.memorysession import Cut, session_task
from tests.agent.syncing import read_tree
from tests.agent.upheaval import POLICY, RENDERED, Upheaval

CUTS = 40
"""In each direction, in an ordinary run."""


@pytest.mark.parametrize("speaker", list(Role), ids=lambda role: role.value)
async def test_cut_after_any_byte(tmp_path: Path, speaker: Role, exhaustive: bool) -> None:
    upheaval = Upheaval(tmp_path)
    source = await TreeSource.build(upheaval.new, reserved=[file.path for file in RENDERED])
    host = await upheaval.host()
    whole = Cut()
    report = await session_task(source, host, whole, **POLICY)
    assert report is not None
    assert report.state == "SUCCESS"
    await upheaval.retry(host, "whole")
    total = whole.sent[speaker]
    assert total > 200
    began = 0
    for after in range(0, total, 1 if exhaustive else max(total // CUTS, 1)):
        shutil.rmtree(host.base)
        host = await upheaval.host()
        before = read_tree(host.target)
        cut = Cut(speaker, after)
        assert await session_task(source, host, cut, **POLICY) is None
        assert cut.sent[speaker] == after
        began += read_tree(host.target) != before
        await upheaval.retry(host, (speaker, after))
    assert began > 0
