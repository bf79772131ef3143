"""A target whose file system is not mounted is not filled, nor taken for removed; one that was emptied is."""

import shutil
from pathlib import Path

import msgspec
import pytest

from agent.manifest import Identity, load, manifest_path, save
from agent.versions import load_releases, record_path, save_releases
from agent.wire.messages import Removal, TaskReport
from agent.work import run_work
from tests.agent.syncing import Host, Outcome, read_tree, synchronise, write_tree
from tests.agent.test_itemise import itemise
from tests.channelpair import channel_pair

TREE = {"index.html": b"one", "data/a": b"two"}


def elsewhere(root: Identity, by: int) -> Identity:
    device, inode, birth = root
    return device + by, inode, birth


class Site:
    """A target, and a host that has it on another device from now on than it was placed on."""

    def __init__(self, root: Path, strategy: str) -> None:
        self.host = Host(root / "host", name="disk/site")
        self.source = write_tree(root / "source", TREE)
        self.strategy = strategy

    async def sync(self) -> Outcome:
        return await synchronise(self.source, self.host, strategy=self.strategy)

    async def remove(self) -> TaskReport:
        removal = Removal(id="r1", project="web", target_path=str(self.host.target))
        _, agent = channel_pair()
        return await run_work(removal, agent, rules=self.host.rules, state_dir=self.host.state)

    def unmount(self) -> None:
        """By the records all is on another device than what is there now."""
        self.change_device(+1)

    def mount(self) -> None:
        self.change_device(-1)

    def change_device(self, by: int) -> None:
        target = str(self.host.target)
        if self.strategy == "release":
            path = record_path(self.host.state, target)
            releases = load_releases(path)
            assert releases is not None
            moved = msgspec.structs.replace(releases, root=elsewhere(releases.root, by))
            save_releases(path, moved, durable=False)
        else:
            path = manifest_path(self.host.state, target)
            manifest = load(path)
            assert manifest is not None
            save(path, msgspec.structs.replace(manifest, root=elsewhere(manifest.root, by)), durable=False)

    def empty(self) -> None:
        shutil.rmtree(self.host.target)
        self.host.target.mkdir()

    @property
    def tree(self) -> Path:
        return self.host.target / "current" if self.strategy == "release" else self.host.target


@pytest.fixture(params=["mirror", "overlay", "release"])
async def site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    site = Site(tmp_path, str(request.param))
    assert (await site.sync()).state == "SUCCESS"
    return site


async def test_what_was_emptied_is_filled_again(site: Site) -> None:
    site.empty()
    assert (await site.sync()).state == "SUCCESS"
    assert read_tree(site.tree.resolve()) == read_tree(site.source)
    shutil.rmtree(site.host.target)
    assert (await site.sync()).state == "SUCCESS"
    assert read_tree(site.tree.resolve()) == read_tree(site.source)


async def test_the_directory_that_a_disk_leaves_is_not_filled(site: Site) -> None:
    site.empty()
    site.unmount()
    outcome = await site.sync()
    assert outcome.state == "FAILED TargetVanished"
    assert "mount it" in outcome.report.message
    assert read_tree(site.host.target) == {}
    # Nor where the directory itself was on it.
    site.host.target.rmdir()
    outcome = await site.sync()
    assert outcome.state == "FAILED TargetVanished"
    assert not site.host.target.exists()


async def test_no_look_foresees_that_it_would_be_filled(site: Site) -> None:
    site.empty()
    site.unmount()
    report, _ = await itemise(site.source, site.host, strategy=site.strategy)
    assert (report.state, report.reason) == ("FAILED", "TargetVanished")


async def test_who_wants_it_filled_anew_puts_a_file_there(site: Site) -> None:
    site.empty()
    site.unmount()
    (site.host.target / "here").write_bytes(b"")
    assert (await site.sync()).state == "SUCCESS"
    assert (site.tree / "index.html").read_bytes() == b"one"


async def test_another_device_alone_says_nothing(site: Site) -> None:
    """Its number is another one after some reboots."""
    site.unmount()
    write_tree(site.source, {"new": b"three"})
    assert (await site.sync()).state == "SUCCESS"
    assert read_tree(site.tree.resolve()) == read_tree(site.source)


async def test_what_a_disk_holds_that_is_away_is_removed_once_it_is_back(site: Site, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    site.host.target.rename(disk)
    site.host.target.mkdir()
    site.unmount()
    report = await site.remove()
    assert (report.state, report.reason) == ("FAILED", "TargetVanished")
    assert "mount it" in report.message
    # Nor where the directory itself is on it.
    site.host.target.rmdir()
    report = await site.remove()
    assert (report.state, report.reason) == ("FAILED", "TargetVanished")
    disk.rename(site.host.target)
    site.mount()
    report = await site.remove()
    assert (report.state, report.warnings) == ("SUCCESS", ())
    assert report.files_deleted
    assert not site.host.target.exists()


async def test_what_is_on_a_disk_that_is_lost_is_forgotten_where_somebody_says_so(site: Site) -> None:
    site.empty()
    site.unmount()
    (site.host.target / "here").write_bytes(b"")
    assert (await site.remove()).state == "SUCCESS"
    assert read_tree(site.host.target) == {"here": b""}
    again = await site.remove()
    assert again.state == "SUCCESS"
    assert again.warnings


async def test_another_device_alone_keeps_nothing(site: Site) -> None:
    site.unmount()
    assert (await site.remove()).state == "SUCCESS"
    left = {path for path, content in read_tree(site.host.target).items() if content is not None}
    assert left == set()


async def test_where_nothing_is_placed_any_more_a_removal_waits_for_no_disk(tmp_path: Path) -> None:
    site = Site(tmp_path, "mirror")
    assert (await site.sync()).state == "SUCCESS"
    for path in site.source.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    emptied = await synchronise(site.source, site.host, allow_empty=True, max_delete=1.0)
    assert (emptied.state, read_tree(site.host.target)) == ("SUCCESS", {})
    site.unmount()
    assert (await site.remove()).state == "SUCCESS"
