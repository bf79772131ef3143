"""Directories that projects are synced from: what a look finds, takes for a change, and spares."""

import grp
import os
import pwd
from pathlib import Path

import pytest
import trio

from reconciler.desired import Revision
from reconciler.directories import Directories, record_changes
from reconciler.journal import Journal
from reconciler.observation import Setback
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.sync.directory_changes import MAX_NAMED, DirectoryChange
from tests.reconciler.facts import HEAD, only_sync
from tests.reconciler.source_directories import (
    EVERYTHING,
    WITHOUT_MAPS,
    directories,
    found,
    paths,
    site,
    spec_of,
)

__all__ = ["directories", "site"]


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


async def test_templates_come_from_the_directory(directories: Directories, site: Path) -> None:
    (site / "a.j2").write_text("{{ LEVEL }}\n")
    rendered = "{path: a, template: a.j2, env: {LEVEL: info}}, {path: b, template: b.j2}"
    looks = await directories.look(spec_of(site, f"files: [{rendered}],"))
    assert found(looks).facts.templates == {"a.j2": "{{ LEVEL }}\n", "b.j2": None}


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
