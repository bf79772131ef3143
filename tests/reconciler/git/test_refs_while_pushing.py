"""Whoever reads the refs while others push must not bring back what was there before."""

import trio

from reconciler.git.mirror import Mirror
from tests.gitrepo import GitRepo

REF = "refs/heads/notes"


async def test_refs_that_were_read_during_a_push_are_not_kept(remote: GitRepo, mirror: Mirror) -> None:
    base = remote.commit({"a": "1"})
    await mirror.refresh()
    commit: str | None = None

    for number in range(5):
        tree = await mirror.write_tree(base, {"n": b"%d" % number})
        new = await mirror.write_commit(tree, [commit or base], "m\n")
        done = trio.Event()

        async def read(done: trio.Event) -> None:
            while not done.is_set():
                await mirror.refs()
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as reading:  # ends when what was under way has ended
            for _ in range(4):
                reading.start_soon(read, done)
            assert await mirror.push(REF, new, expected=commit)
            done.set()
        commit = new
        assert (await mirror.refs()).heads["notes"] == commit
