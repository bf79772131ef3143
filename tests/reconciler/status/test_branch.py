"""The status branch in real repositories: nothing lost in a race or a kill, nothing done without need."""

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import trio

from reconciler.errors import GitUnavailable, StatusContended
from reconciler.status import branch as branch_module
from reconciler.status.branch import StatusBranch
from reconciler.status.documents import Recorded
from reconciler.status.files import parse_files, render_files
from tests.gitrepo import GitRepo, git
from tests.reconciler.status.conftest import BRANCH, KEY, REF, Open, add, fetched, on_remote, sign_on_remote
from tests.reconciler.status.documents import one_of_each, service

ROOT = Path(__file__).parents[3]


async def test_a_missing_branch_is_empty_and_the_first_commit_is_a_root(
    remote: GitRepo, open_status: Open
) -> None:
    status = await fetched(open_status())
    assert await status.read() == Recorded()
    commit = await status.publish(
        lambda _: one_of_each(), "Deploy web v1.0.1\n\nservices/production/web: ready"
    )
    assert commit == remote.resolve(REF)
    assert remote.files(REF) == render_files(one_of_each())
    assert remote.log(REF) == [commit]
    message = remote.git("log", "-1", "--format=%B", REF)
    assert message.startswith("Deploy web v1.0.1\n\nservices/production/web: ready\n\nTrueup-Key: ")
    assert (
        remote.git("log", "-1", "--format=%(trailers:key=Trueup-Key,valueonly)", REF)
        == KEY.signing_fingerprint
    )
    assert await status.read() == one_of_each()


async def test_nothing_is_read_before_anything_was_fetched(open_status: Open) -> None:
    """An empty answer here would make a new primary deploy everything again."""
    with pytest.raises(GitUnavailable):
        await open_status().read()


async def test_nothing_changed_is_no_commit(remote: GitRepo, open_status: Open) -> None:
    status = await fetched(open_status())
    assert await status.publish(lambda recorded: recorded, "Nothing") is None
    assert remote.resolve(REF) is None
    first = await status.publish(lambda _: one_of_each(), "All")
    assert await status.publish(lambda _: one_of_each(), "The same") is None
    assert (
        await (await fetched(open_status("successor"))).publish(lambda _: one_of_each(), "The same") is None
    )
    assert remote.log(REF) == [first]


async def test_reading_and_writing_nothing_asks_no_remote(remote: GitRepo, open_status: Open) -> None:
    status = await fetched(open_status())
    await status.publish(lambda _: one_of_each(), "All")
    remote.path.rename(remote.path.with_name("unreachable"))
    assert await status.read() == one_of_each()
    assert await status.publish(lambda _: one_of_each(), "The same") is None
    with pytest.raises(GitUnavailable):
        await status.publish(add("new"), "New")
    remote.path.with_name("unreachable").rename(remote.path)
    assert await status.read() == one_of_each()
    assert await status.publish(add("new"), "New") == remote.resolve(REF)


async def test_a_successor_with_the_key_reads_everything_back(open_status: Open) -> None:
    status = await fetched(open_status())
    await status.publish(lambda _: one_of_each(), "All")
    await status.publish(lambda recorded: recorded.without(["nodes/web-1"]), "Forget a node")
    successor = await fetched(open_status("new machine"))
    assert await successor.read() == one_of_each().without(["nodes/web-1"])
    await successor.publish(add("from-the-successor"), "Carry on")
    await fetched(status)
    assert (await status.read()).get("services/production/from-the-successor") is not None


async def test_eight_writers_lose_nothing(remote: GitRepo, open_status: Open) -> None:
    primaries = [await fetched(open_status(f"p{number}")) for number in range(8)]
    commits: list[str | None] = []

    async def write(number: int, status: StatusBranch) -> None:
        commits.append(await status.publish(add(f"s{number}"), f"Writer {number}"))

    async with trio.open_nursery() as nursery:
        for number, status in enumerate(primaries):
            nursery.start_soon(write, number, status)
    assert set(on_remote(remote).services) == {f"services/production/s{number}" for number in range(8)}
    assert sorted(remote.log(REF)) == sorted(str(commit) for commit in commits)
    assert len(remote.git("rev-list", "--min-parents=2", REF)) == 0


async def test_tasks_of_one_primary_lose_nothing(remote: GitRepo, open_status: Open) -> None:
    status = await fetched(open_status())
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(status.publish, add(f"s{number}"), f"Task {number}")
            nursery.start_soon(status.read)
    assert len(on_remote(remote).services) == 8
    assert await status.read() == on_remote(remote)


async def test_the_loser_of_a_race_applies_its_change_to_the_winners(
    remote: GitRepo, open_status: Open
) -> None:
    one, other = await fetched(open_status("one")), await fetched(open_status("other"))
    await one.publish(lambda _: one_of_each(), "All")
    await fetched(other)
    seen: list[str] = []

    def change(recorded: Recorded) -> Recorded:
        web = recorded.services["services/production/web"]
        seen.append(web.deploy)
        return recorded.put(msgspec.structs.replace(web, config_hash="v1:new"))

    await one.publish(add("web", deploy="dokploy"), "Another deploy")
    await other.publish(change, "Another hash")
    assert seen == ["invoke", "dokploy"]
    web = on_remote(remote).services["services/production/web"]
    assert (web.deploy, web.config_hash) == ("dokploy", "v1:new")


async def test_a_race_that_never_ends_is_given_up(
    remote: GitRepo, open_status: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branch_module, "MAX_TRIES", 3)
    status = await fetched(open_status())
    await status.publish(add("a"), "First")
    intruded = 0

    def change(recorded: Recorded) -> Recorded:
        nonlocal intruded
        intruded += 1
        files = remote.files(REF) | render_files(Recorded().put(service(f"i{intruded}")))
        sign_on_remote(remote, files, KEY, parent=remote.resolve(REF))
        return recorded.put(service("mine"))

    with pytest.raises(StatusContended):
        await status.publish(change, "Mine")
    assert intruded == 3
    assert "services/production/mine" not in on_remote(remote).services


async def test_only_what_moved_is_read_again(
    remote: GitRepo, open_status: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = await fetched(open_status("writer")), await fetched(open_status("reader"))
    await writer.publish(lambda _: one_of_each(), "All")
    await (await fetched(reader)).read()
    await writer.publish(add("new"), "One more")
    await fetched(reader)
    asked: list[str] = []
    read_files = reader._mirror.read_files

    async def spy(commit: str, paths: list[str], *, max_size: int) -> dict[str, bytes]:
        asked.extend(paths)
        return await read_files(commit, paths, max_size=max_size)

    monkeypatch.setattr(reader._mirror, "read_files", spy)
    assert await reader.read() == one_of_each().put(service("new"))
    assert asked == ["services/production/new.yaml"]


KILLED = """
import sys
from pathlib import Path
import trio
from reconciler.git.mirror import Mirror
from reconciler.keys import MasterKey
from reconciler.status.branch import StatusBranch
from tests.reconciler.status.documents import service

async def main(url, path):
    mirror = Mirror(url, Path(path), allow_local=True)
    await mirror.refresh()
    status = StatusBranch(mirror, MasterKey(bytes(range(32))))
    number = len((await status.read()).services)
    while True:
        await status.publish(lambda recorded: recorded.put(service(f"s{number:05}")), f"Number {number}")
        number += 1
        print(number, flush=True)

trio.run(main, *sys.argv[1:])
"""


async def test_a_kill_leaves_a_branch_that_can_be_read(
    remote: GitRepo, open_status: Open, tmp_path: Path
) -> None:
    """Killed while it publishes one commit after the other; the same state directory carries on."""
    state = tmp_path / "state" / "killed" / "mirror.git"
    for turn in range(4):
        said = await trio.to_thread.run_sync(_kill_after, turn + 1, remote.url, str(state))
        # What was reported as published is there, and nothing is half there.
        services = on_remote(remote).services
        assert len(services) >= said
        assert set(services) == {f"services/production/s{number:05}" for number in range(len(services))}
    status = open_status("killed")
    tip = (await status._mirror.refresh()).heads[BRANCH]
    assert await status.read() == parse_files(remote.files(tip))
    assert await status.publish(add("after"), "After the kills") == remote.resolve(REF)
    git("fsck", "--strict", cwd=remote.path)


def _kill_after(lines: int, url: str, state: str) -> int:
    """Runs KILLED until it has printed so many lines, and kills it; the number it printed last."""
    said = 0
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, url, state], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for _ in range(lines):
            said = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    return said
