"""Directories that projects are synced from: what a look finds and spares, and what keeps it from looking."""

import errno
import grp
import os
import pwd
import random
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agent.scan import Found, hash_files
from reconciler.desired import Revision
from reconciler.directories import Directories, DirectoryLook, Looks, record_changes
from reconciler.journal import Journal
from reconciler.observation import Setback
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.spec.model import Spec
from reconciler.sync.directory_changes import MAX_NAMED, DirectoryChange
from tests.agent.syncing import Host, synchronise
from tests.reconciler.facts import HEAD, only_sync

EVERYTHING: tuple[str, tuple[str, ...], tuple[str, ...]] = ("site", (), ())
WITHOUT_MAPS: tuple[str, tuple[str, ...], tuple[str, ...]] = ("site", (), ("*.map",))


def spec_of(directory: Path | str, sync: str = "", rest: str = "") -> Spec:
    nodes = (
        "[{node_id: web-1, target_path: /srv/a}, {node_id: web-1, target_path: /srv/b, exclude: ['*.map']}]"
    )
    text = (
        f"{HEAD}projects: {{site: {{source: {{directory: {directory}}}, {rest}"
        f" sync: {{{sync} nodes: {nodes}}}}}}}\n"
    )
    return load_or_raise({SPEC_FILE: text.encode()})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "site"
    (directory / "css").mkdir(parents=True)
    (directory / "index.html").write_text("hello\n")
    (directory / "css/a.css").write_text("a {}\n")
    (directory / "css/a.map").write_text("map\n")
    return directory


@pytest.fixture
async def directories(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Directories]:
    """Their clock is ahead, so that no file counts as changed just now."""
    (tmp_path / "state").mkdir()
    yield Directories(nursery.start_soon, (tmp_path / "state",), now=lambda: time.time_ns() + 60 * 10**9)


def found(looks: Looks, key: Any = EVERYTHING) -> DirectoryLook:
    look = looks[key]
    assert isinstance(look, DirectoryLook), look
    return look


def setback(looks: Looks) -> Setback:
    [look, *others] = looks.values()
    assert isinstance(look, Setback)
    assert all(each == look for each in others)
    return look


def paths(look: DirectoryLook) -> list[str]:
    return [entry.path for entry in look.source.entries]


async def test_what_goes_to_each_target(directories: Directories, site: Path) -> None:
    (site / ".git").mkdir()
    (site / "x.tmp").write_text("left out\n")
    (site / "rules").write_text("*.tmp\n")
    looks = await directories.look(spec_of(site, "ignore_file: rules,"))
    assert paths(found(looks)) == ["css", "css/a.css", "css/a.map", "index.html", "rules"]
    assert paths(found(looks, WITHOUT_MAPS)) == ["css", "css/a.css", "index.html", "rules"]
    assert found(looks).facts.ignore == (".git", "runtime/", "tmp/", "*.tmp")
    assert found(looks).facts.digest != found(looks, WITHOUT_MAPS).facts.digest
    assert found(looks).facts.digest == found(looks).source.digest


async def test_what_did_not_change_is_not_read_again(directories: Directories, site: Path) -> None:
    spec = spec_of(site)
    first = await directories.look(spec)
    again = await directories.look(spec)
    assert found(again).source is found(first).source
    known = dict(directories._known["site"].remembered.files)
    (site / "index.html").write_text("other\n")
    changed = await directories.look(spec)
    assert found(changed).facts.digest != found(first).facts.digest
    now = directories._known["site"].remembered.files
    assert {path for path in now if now[path] is not known[path]} == {"index.html"}
    (site / "css/a.map").unlink()
    await directories.look(spec)
    assert "css/a.map" not in directories._known["site"].remembered.files


async def test_the_directory_is_not_scanned_for_a_file_that_changed(
    directories: Directories, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a source is by default: its owners count, and some of it goes to some targets alone."""
    spec = spec_of(site)
    first = await directories.look(spec)
    assert found(first).source.owners

    def scan(*_given: object, **_rules: object) -> None:
        raise AssertionError("the whole directory was scanned")

    monkeypatch.setattr("reconciler.sync.serving.scan", scan)
    (site / "index.html").write_text("other\n")
    (site / "css/a.css").chmod(0o600)
    os.utime(site / "css", (1, 1))
    changed = await directories.look(spec)
    monkeypatch.undo()
    for key in (EVERYTHING, WITHOUT_MAPS):
        assert found(changed, key).facts.digest != found(first, key).facts.digest
    afresh = await Directories(directories._in_background, ()).look(spec)
    assert {key: found(changed, key) for key in changed} == {key: found(afresh, key) for key in afresh}


async def test_a_name_outlives_what_is_known_of_a_directory(
    directories: Directories, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where users cannot be looked up, a project that was off for a while has the owners it had."""
    first = await directories.look(spec_of(site))
    await directories.look(spec_of(site, rest="suspend: true,"))

    def getpwuid(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    again = await directories.look(spec_of(site))
    assert found(again).source is not found(first).source
    assert found(again).facts == found(first).facts


async def test_a_disk_that_gives_errors_is_a_setback(
    directories: Directories, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(site)
    await directories.look(spec)

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", fail)
        (site / "index.html").write_text("other\n")
        failed = setback(await directories.look(spec))
    assert failed.reason == "ObservationFailed"
    assert f"cannot read {site}/index.html: Input/output error" in failed.message
    assert "index.html" in paths(found(await directories.look(spec)))


async def test_what_changed_right_before_it_was_read_is_read_again(tmp_path: Path, site: Path) -> None:
    async with trio.open_nursery() as nursery:
        directories = Directories(nursery.start_soon, (), now=lambda: 0)
        spec = spec_of(site)
        first = await directories.look(spec)
        again = await directories.look(spec)
        assert found(again).source is not found(first).source
        assert found(again).source.entries == found(first).source.entries
        assert directories._known["site"].remembered.files == {}


async def test_what_changed_is_told_once(directories: Directories, site: Path, tmp_path: Path) -> None:
    spec = spec_of(site)
    await directories.look(spec)
    assert directories.take_changes() == []
    (site / "index.html").write_text("other\n")
    (site / "css/a.map").unlink()
    (site / "new\n\x1b[31m;").write_text("new\n")
    os.utime(site / "css/a.css", (1, 1))
    await directories.look(spec)
    await directories.look(spec)
    with Journal(tmp_path / "journal.sqlite") as journal:
        await record_changes(directories, journal)
        await record_changes(directories, journal)
        [event] = journal.events()
    assert (event.kind, event.resource, event.reason) == ("source", "projects/branch/site", "SourceChanged")
    assert event.message == (
        f"{site}: 1 added, 1 changed, 1 removed: removed css/a.map; changed index.html;"
        r" added 'new\n\x1b[31m;'"
    )


def test_many_changes_stay_a_line() -> None:
    change = DirectoryChange("r", "/d", {f"f{number:05}" * 60: "added" for number in range(5000)})
    text = str(change)
    assert text.startswith("/d: 5000 added: added f00000f00000")
    assert text.endswith(f"; and {5000 - MAX_NAMED} more")
    assert len(text) < 2000


async def test_owners_count_unless_somebody_says_otherwise(directories: Directories, site: Path) -> None:
    alone = await directories.look(spec_of(site, "owners: none,"))
    assert found(alone).facts.digest == found(alone).source.tree.hex()
    ignored = await directories.look(spec_of(site, "ignore_permissions: true,"))
    assert found(ignored).source.owners == b""
    looks = await directories.look(spec_of(site))
    source = found(looks).source
    assert found(looks).facts.digest not in (source.tree.hex(), found(alone).facts.digest)
    assert (found(looks).facts.owners, found(alone).facts.owners) == (source.owners, b"")
    names = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    assert source.names() == dict.fromkeys(paths(found(looks)), names)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_another_owner_is_a_change(directories: Directories, site: Path) -> None:
    first = await directories.look(spec_of(site))
    directories.take_changes()
    os.chown(site / "index.html", pwd.getpwnam("daemon").pw_uid, -1)
    os.chown(site / "css", 4_000_000_000, 4_000_000_000)
    second = await directories.look(spec_of(site))
    assert found(second).source.tree == found(first).source.tree
    assert found(second).facts.digest != found(first).facts.digest
    assert found(second).source.names()["index.html"][0] == "daemon"
    assert "css" not in found(second).source.names()
    assert found(second).source.warnings == ("an owner or a group has no name here: of 1 entry",)
    [change] = directories.take_changes()
    assert dict(change.kinds) == {"index.html": "changed", "css": "changed"}


async def test_a_directory_that_is_not_there(directories: Directories, site: Path) -> None:
    spec = spec_of(site)
    await directories.look(spec)
    shutil.rmtree(site)
    gone = setback(await directories.look(spec))
    assert gone == Setback(
        "ObservationFailed", f"cannot read the directory {site}: No such file or directory", unknown=True
    )
    # What changed meanwhile is known once it is there again.
    (site / "index.html").parent.mkdir()
    (site / "index.html").write_text("back\n")
    assert paths(found(await directories.look(spec))) == ["index.html"]
    [change] = directories.take_changes()
    assert dict(change.kinds) == {
        "css": "removed",
        "css/a.css": "removed",
        "css/a.map": "removed",
        "index.html": "changed",
    }


async def test_directories_that_must_not_be_sent(
    directories: Directories, site: Path, tmp_path: Path
) -> None:
    link, above = tmp_path / "link", tmp_path / "above"
    link.symlink_to(site)
    above.symlink_to(tmp_path)
    inside = tmp_path / "state/mirrors"
    inside.mkdir()
    for directory, says in (
        (link, "leads through a symlink"),
        (above / "site", "leads through a symlink"),
        (tmp_path / "state", "lies in"),
        (inside, "lies in"),
        (tmp_path, "contains"),
    ):
        refused = setback(await directories.look(spec_of(directory)))
        assert (refused.reason, refused.unknown) == ("PathRefused", False)
        assert says in refused.message
        assert directory.name in refused.message


@pytest.mark.parametrize("kind", ["empty", "ignored", "file"])
async def test_nothing_to_sync_is_not_an_empty_tree(
    directories: Directories, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("no directory\n")
    else:
        place.mkdir()
    if kind == "ignored":
        (place / "tmp").mkdir()
        (place / "tmp/x").write_text("x\n")
    refused = setback(await directories.look(spec_of(place)))
    assert refused.unknown
    assert refused.reason == "ObservationFailed"
    assert str(place) in refused.message


async def test_an_ignore_file_that_is_not_there(directories: Directories, site: Path) -> None:
    refused = setback(await directories.look(spec_of(site, "ignore_file: rules,")))
    assert refused.reason == "RevisionNotFound"
    (site / "rules").symlink_to("/etc/passwd")
    assert setback(await directories.look(spec_of(site, "ignore_file: rules,"))).reason == "PathRefused"


async def test_templates_come_from_the_directory(directories: Directories, site: Path) -> None:
    (site / "a.j2").write_text("{{ LEVEL }}\n")
    rendered = "{path: a, template: a.j2, env: {LEVEL: info}}, {path: b, template: b.j2}"
    looks = await directories.look(spec_of(site, f"files: [{rendered}],"))
    assert found(looks).facts.templates == {"a.j2": "{{ LEVEL }}\n", "b.j2": None}


async def test_a_directory_that_changes_while_it_is_read(
    directories: Directories, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer strikes after the walk and before the file is read, as often as it likes."""
    strikes = 2

    async def written_meanwhile(root_fd: int, files: Any, **how: Any) -> Mapping[str, bytes | None]:
        nonlocal strikes
        files = list[tuple[str, Found]](files)
        if files and strikes:
            strikes -= 1
            there = (site / "index.html").stat()
            (site / "index.html").write_text("more\n")
            os.utime(site / "index.html", ns=(there.st_atime_ns, there.st_mtime_ns + 1))
        return await hash_files(root_fd, files, **how)

    monkeypatch.setattr("reconciler.sync.remembered.hash_files", written_meanwhile)
    look = found(await directories.look(spec_of(site)))
    assert [entry.size for entry in look.source.entries if entry.path == "index.html"] == [5]
    strikes = 1000
    (site / "index.html").write_text("begin\n")
    unsteady = setback(await directories.look(spec_of(site)))
    assert (unsteady.reason, unsteady.unknown) == ("SourceChanged", True)
    assert "index.html' changed while it was read" in unsteady.message
    strikes = 0
    (site / "index.html").write_text("the end\n")
    assert found(await directories.look(spec_of(site))).facts.digest != look.facts.digest


async def test_a_file_that_grows_all_the_time_keeps_nothing_back(
    directories: Directories, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log: something is added each time before it is read. It is taken as long as it was when seen."""
    lines = random.Random(1)

    def grow() -> None:
        with (site / "log").open("ab") as file:
            file.write(lines.randbytes(70_000))

    async def written_meanwhile(root_fd: int, files: Any, **how: Any) -> Mapping[str, bytes | None]:
        grow()
        return await hash_files(root_fd, files, **how)

    async def written_over(root_fd: int, files: Any, **how: Any) -> Mapping[str, bytes | None]:
        (site / "log").write_bytes(lines.randbytes((site / "log").stat().st_size + 1))
        return await hash_files(root_fd, files, **how)

    monkeypatch.setattr("reconciler.sync.remembered.hash_files", written_meanwhile)
    host = Host(tmp_path / "host")
    grow()
    for known in (1, 2):
        look = found(await directories.look(spec_of(site)))
        grow()
        outcome = await synchronise(look.source, host)
        assert outcome.state == "SUCCESS", outcome.report.message
        assert (host.target / "index.html").read_bytes() == (site / "index.html").read_bytes()
        [size] = [entry.size for entry in look.source.entries if entry.path == "log"]
        assert 0 < size < (site / "log").stat().st_size
        assert (host.target / "log").read_bytes() == (site / "log").read_bytes()[:size]
        (site / "index.html").write_text(f"{known}\n")
    # What is being written over, and longer than before, is neither the one nor the other.
    monkeypatch.setattr("reconciler.sync.remembered.hash_files", written_over)
    unsteady = setback(await directories.look(spec_of(site)))
    assert (unsteady.reason, unsteady.unknown) == ("SourceChanged", True)
    monkeypatch.setattr("reconciler.sync.remembered.hash_files", written_meanwhile)
    # And what was written over since it was seen is not sent for that.
    look = found(await directories.look(spec_of(site)))
    (site / "log").write_bytes(lines.randbytes(1_000_000))
    outcome = await synchronise(look.source, host)
    assert outcome.state == "FAILED SourceChanged"


async def test_a_directory_that_takes_long(site: Path, autojump_clock: MockClock) -> None:
    """A pass goes on without it; who comes meanwhile waits for the same look; then a pass is asked for."""
    begun: list[tuple[Any, ...]] = []
    late: list[str] = []
    directories = Directories(lambda *given: begun.append(given), ())
    directories.on_late = late.append
    spec = spec_of(site)
    assert setback(await directories.look(spec, patience=10)).reason == "Progressing"
    assert setback(await directories.look(spec, patience=10)).unknown
    [(read, *arguments)] = begun
    await read(*arguments)
    assert late == ["projects/branch/site"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(directories.look, spec)
        await trio.testing.wait_all_tasks_blocked()
        read, *arguments = begun[-1]
        await read(*arguments)
    assert late == ["projects/branch/site"]


async def test_a_project_that_is_off_is_not_looked_at(directories: Directories) -> None:
    for rest in ("suspend: true,", ""):
        sync = "" if rest else "enabled: false,"
        assert await directories.look(spec_of("/nowhere", sync, rest)) == {}


async def test_the_digest_decides_and_is_the_revision(directories: Directories, site: Path) -> None:
    nodes = "nodes: [{node_id: web-1, target_path: /srv}]"
    text = f"projects: {{site: {{source: {{directory: {site}}}, sync: {{{nodes}}}}}}}\n"
    looks = await directories.look(load_or_raise({SPEC_FILE: (HEAD + text).encode()}))
    facts = {key: found(looks, key).facts for key in looks}
    sync = only_sync(text, directories=facts)
    digest = found(looks).facts.digest
    assert sync.revision == Revision("dir", digest, form="sha256")
    assert str(sync.revision) == f"dir@sha256:{digest}"
    assert sync.inputs.public["path ."] == digest
    (site / "index.html").write_text("other\n")
    looks = await directories.look(load_or_raise({SPEC_FILE: (HEAD + text).encode()}))
    later = only_sync(text, directories={key: found(looks, key).facts for key in looks})
    assert later.hash != sync.hash
    missing = Setback("ObservationFailed", "gone", unknown=True)
    assert only_sync(text, directories=dict.fromkeys(looks, missing)).setback == missing
