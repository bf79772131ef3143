"""What is noted of times that no look minds, after a task."""

from agent.index import directory_entry, symlink_entry
from agent.lateness import late_after
from agent.ledger import Ledger
from agent.manifest import Placed
from agent.scan import Found
from agent.wire.messages import Entry
from tests.agent.test_runs import file

AS_RECORDED = 1


def folder(path: str) -> Entry:
    return directory_entry(path, mode=0o755, mtime_ns=AS_RECORDED)


def found(entry: Entry, mtime_ns: int) -> Found:
    return Found(entry.kind, entry.mode, entry.size, 1, 2, mtime_ns, 3, entry.link)


def test_what_a_task_has_recorded_is_late_by_what_it_has_left() -> None:
    """What is gone is late no more, a file never is, and of all else it is as before."""
    put_right, still = folder("put right"), symlink_entry("still", mtime_ns=AS_RECORDED, link="x")
    fresh, written = folder("fresh"), file("file", mtime_ns=AS_RECORDED)
    before = Ledger.of(
        [Placed(folder("elsewhere"))],
        modes=True,
        times=True,
        late=frozenset({"elsewhere", "gone", "put right", "still"}),
    )
    recorded = [Placed(each) for each in (put_right, still, fresh, written)]
    left = {
        each.path: found(each, AS_RECORDED if each is put_right else 7)
        for each in (put_right, still, fresh, written)
    }
    assert late_after(before, ["gone"], recorded, left) == {"elsewhere", "still", "fresh"}
