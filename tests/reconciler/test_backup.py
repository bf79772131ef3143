"""Backups of a state directory: what is in them, and what is refused without leaving a trace."""

import io
import json
import os
import sqlite3
import stat
import tarfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.backup import BackupInvalid, back_up, restore
from reconciler.journal import Journal
from reconciler.keys import MasterKey
from reconciler.primary import KEY_FILE
from reconciler.settings import Settings, load_settings
from reconciler.setup import make_key
from reconciler.state_lock import lock_state
from tests.canaries import may_hold
from tests.world import tree_of

OTHERS = {"mirrors/x.git/HEAD": "ref: main\n", "checkouts/1/a": "a", "sync_tls/server.crt": "x"}


def settings_of(directory: Path, **environ: str) -> Settings:
    return load_settings({"TRUEUP_STATE_DIR": str(directory), "HOME": str(directory), **environ})


@pytest.fixture
def state(tmp_path: Path) -> Settings:
    """A state directory with a key, a journal in which one result is not published, and all the rest."""
    settings = settings_of(tmp_path / "state")
    may_hold(settings.state_dir / KEY_FILE)
    list(make_key(settings))
    for name, content in OTHERS.items():
        (settings.state_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (settings.state_dir / name).write_text(content)
    with Journal(settings.state_dir / "journal.sqlite") as journal:
        journal.record_event("paired", "nodes/web-1", "Paired")
        step = journal.begin_step(journal.begin_pass("main@sha1:1"), "services/a/b", "deploy", "", "")
        journal.end_step(step, "succeeded", "Applied", result={"resource": "services/a/b"})
    return settings


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def rewritten(archive: Path, change: Callable[[dict[str, bytes]], Mapping[str, bytes]]) -> Path:
    """The same archive with other members, its list as it was unless that is changed."""
    contents = change(members(archive))
    other = archive.with_name("other.tar.gz")
    with tarfile.open(other, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return other


def test_a_backup_comes_back_and_holds_nothing_that_can_be_had_again(state: Settings, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.gz"
    archive.write_text("an older one")
    before = tree_of(state.state_dir)
    umask = os.umask(0)
    try:
        with lock_state(state):  # as a running primary holds it
            said = back_up(state, str(archive), with_key=False)
    finally:
        os.umask(umask)
    assert "without the master key" in said[1]
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert sorted(members(archive)) == ["backup.json", "journal.sqlite"]
    after = tree_of(state.state_dir)
    assert {name: after[name] for name in after if "sqlite-" not in name and "lock" not in name} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar.gz", "state"]

    other = settings_of(tmp_path / "other")
    said = restore(other, str(archive))
    assert "put the master key" in said[1]
    assert stat.S_IMODE(other.state_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((other.state_dir / "journal.sqlite").stat().st_mode) == 0o600
    with Journal(other.state_dir / "journal.sqlite") as journal:
        [event] = journal.events()
        assert (event.kind, event.resource) == ("paired", "nodes/web-1")
        # What the status branch was not told then may be older than what it says now: it is done again.
        assert journal.unpublished() == ()
        assert [step.resource for step in journal.interrupted()] == ["services/a/b"]


def test_the_key_goes_along_where_asked_for(state: Settings, tmp_path: Path) -> None:
    archive = may_hold(tmp_path / "backup.tar.gz")
    key = (state.state_dir / KEY_FILE).read_bytes()
    back_up(state, str(archive), with_key=True)
    assert members(archive)[KEY_FILE] == key
    other = settings_of(tmp_path / "other")
    may_hold(other.state_dir / KEY_FILE)
    assert "next: start the primary" in restore(other, str(archive))[1]
    assert (other.state_dir / KEY_FILE).read_bytes() == key
    assert stat.S_IMODE((other.state_dir / KEY_FILE).stat().st_mode) == 0o600


def test_a_key_of_the_environment_reaches_no_disk_but_the_archive(state: Settings, tmp_path: Path) -> None:
    key = MasterKey.generate()
    (state.state_dir / KEY_FILE).unlink()
    given = settings_of(state.state_dir, TRUEUP_MASTER_KEY=key.to_text())
    back_up(given, str(tmp_path / "without"), with_key=False)
    assert not (state.state_dir / KEY_FILE).exists()
    other = settings_of(tmp_path / "other", TRUEUP_MASTER_KEY=MasterKey.generate().to_text())
    said = restore(other, str(tmp_path / "without"))
    assert f"belongs to the master key {key.key_id}" in said[1]


def cut(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {"backup.json": contents["backup.json"]}


def flipped(contents: dict[str, bytes]) -> dict[str, bytes]:
    journal = bytearray(contents["journal.sqlite"])
    journal[-1] ^= 1
    return {**contents, "journal.sqlite": bytes(journal)}


def longer(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {**contents, "journal.sqlite": contents["journal.sqlite"] + b"\0"}


def with_more(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {**contents, "../escaped": b"x"}


def listing(**fields: object) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def change(contents: dict[str, bytes]) -> dict[str, bytes]:
        listed = json.loads(contents["backup.json"]) | fields
        return {**contents, "backup.json": json.dumps(listed).encode()}

    return change


DAMAGES = {
    "lacks journal.sqlite": cut,
    "is not what was backed up": flipped,
    "journal.sqlite in the backup is damaged": longer,
    "not on its list": with_more,
    "has the format 2": listing(format=2),
    "does not name what": listing(files=[{"name": "../journal.sqlite", "size": 1, "sha256": ""}]),
    "cannot be read": listing(files=3),
    "no backup of trueup": lambda contents: {"journal.sqlite": contents["journal.sqlite"]},
}


@pytest.mark.parametrize("says", DAMAGES)
def test_a_damaged_backup_leaves_nothing_behind(state: Settings, tmp_path: Path, says: str) -> None:
    archive = tmp_path / "backup.tar.gz"
    back_up(state, str(archive), with_key=False)
    bad = rewritten(archive, DAMAGES[says])
    before = tree_of(tmp_path)
    with pytest.raises(BackupInvalid, match=says):
        restore(settings_of(tmp_path / "other"), str(bad))
    assert tree_of(tmp_path) == before


def test_what_is_cut_short_or_something_else_is_refused(state: Settings, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.gz"
    back_up(state, str(archive), with_key=False)
    whole = archive.read_bytes()
    before = tree_of(tmp_path)
    for content in (b"", b"text\n" * 500, whole[: len(whole) // 2], whole[:300]):
        archive.write_bytes(content)
        with pytest.raises(BackupInvalid):
            restore(settings_of(tmp_path / "other"), str(archive))
    archive.write_bytes(whole)
    assert tree_of(tmp_path) == before


def test_a_journal_of_a_newer_version_is_refused(state: Settings, tmp_path: Path) -> None:
    with closing(sqlite3.connect(state.state_dir / "journal.sqlite")) as journal:
        journal.execute("PRAGMA user_version = 999")
    back_up(state, str(tmp_path / "backup"), with_key=False)
    with pytest.raises(BackupInvalid, match="newer trueup"):
        restore(settings_of(tmp_path / "other"), str(tmp_path / "backup"))
    assert not (tmp_path / "other").exists()


def test_nothing_is_restored_over_anything(state: Settings, tmp_path: Path) -> None:
    back_up(state, str(tmp_path / "backup"), with_key=False)
    before = tree_of(state.state_dir)
    with pytest.raises(Exception, match="is not empty: checkouts, journal"):
        restore(state, str(tmp_path / "backup"))
    assert tree_of(state.state_dir) == before | {"primary.lock": ("file", 0o600, b"")}
    other = settings_of(tmp_path / "other")
    other.state_dir.mkdir()
    with lock_state(other), pytest.raises(Exception, match="another trueup works on"):
        restore(other, str(tmp_path / "backup"))
    with pytest.raises(Exception, match="No such file"):
        restore(other, str(tmp_path / "nothing"))
    restore(other, str(tmp_path / "backup"))


def test_a_damaged_journal_is_not_backed_up(state: Settings, tmp_path: Path) -> None:
    path = state.state_dir / "journal.sqlite"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BackupInvalid):
        back_up(state, str(tmp_path / "backup"), with_key=False)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["state"]
    with pytest.raises(Exception, match="has no journal"):
        path.unlink()
        back_up(state, str(tmp_path / "backup"), with_key=False)
