"""A change of the spec is one commit of whoever asked, on what is there when it is pushed, or none at all."""

from functools import partial
from pathlib import Path

import pytest
import trio

from agent.node_token import NodeToken
from reconciler.errors import SpecInvalid
from reconciler.git.mirror import Mirror
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.spec_edit import EditRefused, NodeFields, add_node, change_node, remove_node
from reconciler.spec_write import BranchProtected, SpecWriter
from tests.gitrepo import GitRepo

ANNA = "Anna Example <anna@example.org>"
KEY = NodeToken.generate().public_text
SPEC = f'version: 1  # mine\nnodes:\n  old: {{token_key: "{KEY}"}}  # the first\n'


@pytest.fixture
def remote(tmp_path: Path) -> GitRepo:
    remote = GitRepo.create(tmp_path / "spec.git")
    remote.commit({SPEC_FILE: SPEC, "README": "hello\n"})
    return remote


def writer(remote: GitRepo, tmp_path: Path, name: str = "one") -> SpecWriter:
    return SpecWriter(Mirror(remote.url, tmp_path / f"{name}.git", allow_local=True), "main")


def people(remote: GitRepo) -> list[str]:
    return remote.git("log", "-1", "--format=%an <%ae>%n%cn <%ce>%n%s%n%P", "main").splitlines()


async def test_one_commit_in_the_name_of_who_asked(remote: GitRepo, tmp_path: Path) -> None:
    before = remote.resolve("main")
    written = await writer(remote, tmp_path).write(
        change_node("old", NodeFields(labels={"rack": "2"})), author=ANNA
    )
    assert people(remote) == [ANNA, "trueup <trueup@localhost>", "Change node old", before]
    assert (written.commit, written.parent) == (remote.resolve("main"), before)
    assert remote.read(SPEC_FILE).decode() == SPEC.replace('"}', '", labels: {rack: "2"}}')
    assert remote.read("README") == b"hello\n"
    # What is as it should be makes no commit.
    again = await writer(remote, tmp_path).write(
        change_node("old", NodeFields(labels={"rack": "2"})), author=ANNA
    )
    assert (again.commit, again.diff) == ("", "")


async def test_what_would_be_done_is_told_and_not_done(remote: GitRepo, tmp_path: Path) -> None:
    before = remote.refs()
    written = await writer(remote, tmp_path).write(remove_node("old"), author=ANNA, dry_run=True)
    assert (written.commit, written.message, written.author) == ("", "Remove node old", ANNA)
    assert f'-  old: {{token_key: "{KEY}"}}  # the first\n' in written.diff
    assert remote.refs() == before


async def test_two_who_write_at_once_lose_nothing(remote: GitRepo, tmp_path: Path) -> None:
    writers = [writer(remote, tmp_path, name) for name in ("one", "two")]
    names = [f"web-{number}" for number in range(6)]
    async with trio.open_nursery() as nursery:
        for number, name in enumerate(names):
            edit = add_node(name, NodeToken.generate().public_text, NodeFields())
            nursery.start_soon(partial(writers[number % 2].write, edit, author=ANNA))
    assert load_or_raise({SPEC_FILE: remote.read(SPEC_FILE)}).nodes.keys() == {"old", *names}
    assert len(remote.log()) == 1 + len(names)


async def test_whoever_has_seen_an_older_spec_is_told(remote: GitRepo, tmp_path: Path) -> None:
    shown = remote.resolve("main")
    remote.commit({"README": "hello again\n"})
    edit = change_node("old", NodeFields(display="Old"))
    write = writer(remote, tmp_path).write
    assert (await write(edit, author=ANNA, expected=shown)).commit  # the spec is as it was shown
    with pytest.raises(EditRefused, match="the spec was changed since") as refused:
        await write(remove_node("old"), author=ANNA, expected=shown)
    assert refused.value.status == 409
    with pytest.raises(EditRefused, match="the spec was changed since"):
        await write(remove_node("old"), author=ANNA, expected="0" * 40)


async def test_a_problem_is_not_pushed(remote: GitRepo, tmp_path: Path) -> None:
    before = remote.resolve("main")
    with pytest.raises(SpecInvalid, match="is that of node"):
        await writer(remote, tmp_path).write(add_node("web-1", KEY, NodeFields()), author=ANNA)
    assert remote.resolve("main") == before


async def test_a_protected_branch_gives_the_lines_for_a_pull_request(remote: GitRepo, tmp_path: Path) -> None:
    hook = remote.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho protected >&2\nexit 1\n")
    hook.chmod(0o755)
    before = remote.resolve("main")
    with pytest.raises(BranchProtected, match=r"protected.*pull request") as refused:
        await writer(remote, tmp_path).write(remove_node("old"), author=ANNA)
    assert refused.value.status == 409
    assert "-  old: " in refused.value.written.diff
    assert remote.resolve("main") == before
