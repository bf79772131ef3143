"""What a task took of a large tree is free when it has ended, not when garbage is collected some day."""

import gc
from pathlib import Path

import pytest

from agent.look import View
from agent.transfer import Transfer
from agent.writer import Writer
from tests.agent.streams import begin, first_copy
from tests.agent.syncing import AFTER, BEFORE, Host, synchronise, write_tree


def held() -> list[str]:
    return [type(each).__name__ for each in gc.get_objects() if isinstance(each, Transfer | Writer | View)]


@pytest.mark.parametrize("work", ["first copy", "streamed", "changed"])
async def test_nothing_of_a_task_waits_for_the_garbage_collector(tmp_path: Path, work: str) -> None:
    host = Host(tmp_path / "host")
    old, new = write_tree(tmp_path / "old", BEFORE), write_tree(tmp_path / "new", AFTER)
    if work == "changed":
        assert (await synchronise(old, host)).state == "SUCCESS"
    growing = await begin(new)
    await growing.run()
    gc.collect()
    gc.disable()
    try:
        if work == "streamed":
            assert (await first_copy(growing, host)).state == "SUCCESS"
        else:
            assert (await synchronise(new, host)).state == "SUCCESS"
        assert held() == []
    finally:
        gc.enable()
