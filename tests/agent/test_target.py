"""A target is opened below an allowed root or not at all."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import PathRefused
from agent.failures import TaskFailed
from agent.target import check_target, open_target


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "srv/app",
        "/srv/../etc",
        "/srv/./app",
        "/srv//app",
        "/srv/app/",
        "/etc/passwd",
        "/srvapp",
        "/srv\0/app",
        "/srv/" + "d/" * 2100 + "d",
    ],
)
def test_targets_that_are_refused(path: str) -> None:
    with pytest.raises(PathRefused):
        check_target(path, ["/srv", "/data/x"])


def test_the_innermost_root_is_taken() -> None:
    assert check_target("/srv/a/b", ["/srv", "/srv/a/"]) == ("/srv/a", ["b"])
    assert check_target("/srv/a", ["/srv/a"]) == ("/srv/a", [])
    assert check_target("/opt/a", ["/"]) == ("/", ["opt", "a"])
    with pytest.raises(PathRefused, match="its roots are none"):
        check_target("/srv/a", [])


@given(st.lists(st.sampled_from(["..", ".", "", "etc", "srv", "app", "a\0"]), max_size=6).map("/".join))
def test_no_accepted_target_is_outside(tail: str) -> None:
    for path in (tail, f"/{tail}", f"/srv/{tail}"):
        try:
            root, names = check_target(path, ["/srv"])
        except PathRefused:
            continue
        assert root == "/srv"
        assert os.path.normpath(path) == path
        assert not {"", ".", ".."} & set(names)


def test_missing_directories_are_made_below_the_root_only(tmp_path: Path) -> None:
    root = str(tmp_path / "srv")
    with pytest.raises(TaskFailed, match="does not exist") as caught:
        open_target(f"{root}/a/b", [root], create=True)
    assert caught.value.code == "RootMissing"
    Path(root).mkdir()
    assert open_target(f"{root}/a/b", [root], create=False) is None
    assert not (tmp_path / "srv/a").exists()
    target = open_target(f"{root}/a/b", [root], create=True)
    assert target is not None
    status = (tmp_path / "srv/a/b").stat()
    assert target.identity[:2] == (status.st_dev, status.st_ino)
    target.close()


def test_a_directory_made_anew_is_another_one(tmp_path: Path) -> None:
    """File systems give an inode's number anew at once, so the number alone would not tell."""

    def make() -> tuple[int, int, int]:
        target = open_target(f"{tmp_path}/a", [str(tmp_path)], create=True)
        assert target is not None
        identity = target.identity
        target.close()
        return identity

    def forget(identity: tuple[int, int, int]) -> None:
        # Births within one tick of the file system's clock look alike; so wait for the next tick.
        for number in itertools.count():
            probe = tmp_path / f"probe{number}"
            probe.mkdir()
            if probe.stat().st_ctime_ns > identity[2]:
                return

    first = make()
    (tmp_path / "a").rmdir()
    forget(first)
    assert make() != first


def test_symlinks_and_files_below_the_root_are_not_entered(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "srv"
    root.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").write_text("x")
    for name in ("link", "link/a", "file", "file/a"):
        with pytest.raises(PathRefused, match="not followed"):
            open_target(f"{root}/{name}", [str(root)], create=True)
    assert list(outside.iterdir()) == []


def test_the_root_itself_may_be_reached_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "srv").symlink_to(tmp_path / "data")
    target = open_target(f"{tmp_path}/srv/app", [f"{tmp_path}/srv"], create=True)
    assert target is not None
    target.close()
    assert (tmp_path / "data/app").is_dir()
