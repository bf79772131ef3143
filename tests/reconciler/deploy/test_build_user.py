"""The account that runs a repository's code: finding it, and tasks that run as it."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.deploy.build_user import BuildUser, find_build_user
from reconciler.deploy.context import RunContext
from reconciler.deploy.driver import DRIVERS
from reconciler.errors import SettingsError
from tests.reconciler.deploy.invoking import failure, request

# --- finding it ----------------------------------------------------------------------------------


def test_none_asked_for() -> None:
    assert find_build_user(None) is None


def test_the_account_that_we_are_already() -> None:
    assert find_build_user(pwd.getpwuid(os.geteuid()).pw_name) is None


def test_no_such_account() -> None:
    with pytest.raises(SettingsError, match="TRUEUP_BUILD_USER: there is no user 'no-such-user'"):
        find_build_user("no-such-user")


def test_only_root_can_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SettingsError, match="only root can run tasks as 'root'"):
        find_build_user("root")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")
def test_the_account_with_its_groups() -> None:
    entry = pwd.getpwnam("nobody")
    found = find_build_user("nobody")
    assert found is not None
    assert (found.name, found.uid, found.gid) == ("nobody", entry.pw_uid, entry.pw_gid)
    assert entry.pw_gid not in found.groups
    assert 0 not in found.groups


# --- tasks that run as it ------------------------------------------------------------------------


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that everybody can reach; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="trueup-test-", dir="/var/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")
async def test_a_task_runs_as_the_build_user(checkout: Path, open_dir: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    tree = open_dir / "tree"
    shutil.copytree(checkout, tree, symlinks=True)
    (open_dir / "pointed-at").write_text("elsewhere\n")
    (tree / "web" / "outside").symlink_to(open_dir / "pointed-at")
    (open_dir / "linked").write_text("elsewhere\n")
    os.link(open_dir / "linked", tree / "linked")
    context = RunContext(
        {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        open_dir / "homes",
        # trueup's own Python may stand where only root can go.
        invoke_command=(
            "/bin/sh",
            "-c",
            'id -u; stat -c %u . web/deep "$HOME"; echo x > made; echo x > "$HOME/made"',
        ),
        build_user=BuildUser("nobody", nobody.pw_uid, nobody.pw_gid, ()),
    )
    outcome = await DRIVERS["invoke"].deploy(request(tree, context, "show"))
    assert outcome.output.split() == [str(nobody.pw_uid)] * 4
    assert (tree / "made").stat().st_uid == nobody.pw_uid
    for outside in ("linked", "pointed-at"):
        assert (open_dir / outside).stat().st_uid == 0
    assert list(context.scratch.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")
async def test_a_closed_state_directory_is_opened_for_the_build_user_alone(
    checkout: Path, open_dir: Path
) -> None:
    nobody = pwd.getpwnam("nobody")
    state = open_dir / "state"
    tree = state / "checkouts" / "tree"
    state.mkdir(mode=0o700)
    tree.parent.mkdir(mode=0o700)
    shutil.copytree(checkout, tree)
    context = RunContext(
        {"PATH": "/usr/bin:/bin"},
        state / "homes",
        invoke_command=("/bin/sh", "-c", f"cd {tree} && cat README.txt; ls {state}"),
        build_user=BuildUser("nobody", nobody.pw_uid, nobody.pw_gid, ()),
    )
    (tree / "README.txt").write_text("reached\n")
    error = await failure(request(tree, context, "show"))
    assert error.output.startswith("reached\n")
    assert "Permission denied" in error.output, "passing through is not looking around"
    for directory in (state, tree.parent):
        status = directory.stat()
        assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o710, 0, nobody.pw_gid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")
@pytest.mark.parametrize("where", ["above the state directory", "a group has rights there"])
async def test_a_work_tree_that_the_build_user_cannot_reach(
    checkout: Path, open_dir: Path, where: str
) -> None:
    nobody = pwd.getpwnam("nobody")
    closed = open_dir / "closed"
    closed.mkdir(mode=0o700)
    state = closed
    if where == "above the state directory":
        state = closed / "state"
        state.mkdir(mode=0o700)
    else:
        closed.chmod(0o750)
    tree = state / "tree"
    shutil.copytree(checkout, tree)
    context = RunContext(
        {"PATH": "/usr/bin:/bin"},
        state / "homes",
        build_user=BuildUser("nobody", nobody.pw_uid, nobody.pw_gid, ()),
    )
    before = closed.stat().st_mode
    with pytest.raises(SettingsError, match=f"nobody cannot enter {closed}, .*chmod o\\+x {closed}`"):
        await DRIVERS["invoke"].deploy(request(tree, context, "show"))
    assert closed.stat().st_mode == before
