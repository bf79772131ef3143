"""Hosts that cannot be reached or written: said clearly, what is there stays, and the next pass completes."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.bad_world import BOTH, Case, error, make_case
from tests.mounting import small_file_system
from tests.world import Host, tree_of

PROJECT = """\
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      retry: {{attempts: 2, backoff: 10ms}}
      nodes: [{{node_id: web-1, target_path: "{target}"}}]
nodes: {{}}
"""


async def add_host(case: Case) -> tuple[Host, Path, str]:
    """A host that the spec syncs `site` to, not joined yet; with the target and its resource id."""
    target = case.world.root / "hosts" / "web-1" / "srv" / "site"
    case.commit(case.good + PROJECT.format(target=target))
    host = await case.world.add_host("web-1", case.relay)
    return host, target, f"projects/branch/site/web-1/{str(target).strip('/').replace('/', '+')}"


async def first_pass(case: Case, host: Host) -> trio.Process:
    """A pass in which the agent joins and everything is applied; the agent stays."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: case.reconcile(expect=0))
        return await case.world.start_agent(host)


async def test_a_host_that_never_joined(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        _, target, resource = await add_host(case)
        ran = await case.reconcile("--wait-agents", "1s", expect=4)
        assert error(ran) == (
            f"error: {resource}: AwaitingPairing: web-1 has never been paired; "
            "run its `trueup-agent join …` on the host"
        )
        assert case.ready(resource)[:2] == ("Unknown", "AwaitingPairing")
        assert case.ready("nodes/web-1")[:2] == ("False", "AwaitingPairing")
        # The rest goes on, and the next pass has nothing to add.
        assert case.deployed() == BOTH
        again = await case.reconcile("--wait-agents", "0s", expect=4)
        assert (again.document["steps"], again.document["statusCommit"]) == ([], None)
        assert not target.exists()


async def test_a_host_that_went_away(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        host, target, resource = await add_host(case)
        await first_pass(case, host)
        await case.world.stop_agents()
        before, recorded = tree_of(target), case.status(resource)
        case.world.app.commit({"site/index.html": "<h1>changed</h1>\n"})
        case.release("v1.1.0")
        ran = await case.reconcile("--wait-agents", "1s", expect=4)
        assert error(ran) == (
            f"error: {resource}: AgentUnreachable: web-1 is not connected; "
            "is `trueup-agent run` running there?"
        )
        assert {step["action"] for step in ran.document["steps"]} == {"deploy"}
        assert case.deployed() == {"api": ["v1.0.0", "v1.1.0"], "database": ["v1.0.0", "v1.1.0"]}
        assert tree_of(target) == before
        assert case.ready(resource)[:2] == ("Unknown", "AgentUnreachable")
        assert case.ready("nodes/web-1")[:2] == ("Unknown", "AgentUnreachable")
        kept = case.status(resource)
        for field in ("lastAppliedRevision", "configHash", "treeDigest", "inputs"):
            assert kept[field] == recorded[field]
        # Back again: the next pass brings what was missed.
        await case.world.start_agent(host, joined=True)
        done = await case.reconcile(expect=0)
        assert [step["action"] for step in done.document["steps"]] == ["sync"]
        assert (target / "index.html").read_text() == "<h1>changed</h1>\n"


async def test_a_service_that_waits_for_a_host(tmp_path: Path) -> None:
    """With `on_unreachable: block` what depends on the project waits for it; otherwise it does not."""
    async with make_case(tmp_path) as case:
        case.head = case.head.replace("version: 1\n", "version: 1\n# depends on a project\n")
        await add_host(case)
        text = case.world.spec.read("trueup.yaml").decode()
        text = text.replace("  api:\n", "  api:\n    depends_on: [project/site]\n")
        case.commit(text.replace("    sync:\n", "    sync:\n      on_unreachable: block\n"))
        blocked = await case.reconcile("--wait-agents", "0s", expect=4)
        assert case.deployed() == {"database": ["v1.0.0"]}
        outcome = blocked.document["outcomes"]["services/staging/api"]
        assert (outcome["state"], outcome["reason"]) == ("blocked", "DependencyNotReady")
        assert outcome["message"].endswith(", which is not in order")
        assert case.ready("services/staging/api")[:2] == ("False", "DependencyNotReady")
        case.commit(text)
        await case.reconcile("--wait-agents", "0s", expect=4)
        assert case.deployed() == BOTH


async def test_a_target_that_the_host_does_not_allow(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        host, target, resource = await add_host(case)
        text = case.world.spec.read("trueup.yaml").decode()
        elsewhere = case.world.root / "elsewhere"
        case.commit(text.replace(str(target), str(elsewhere)))
        async with trio.open_nursery() as nursery:
            done: list[str] = []

            async def one_pass() -> None:
                done.append((await case.reconcile(expect=4)).stdout)

            nursery.start_soon(one_pass)
            await case.world.start_agent(host)
        other = resource.rpartition("/")[0] + "/" + str(elsewhere).strip("/").replace("/", "+")
        status, reason, message = case.ready(other)
        assert (status, reason) == ("False", "PathRefused")
        assert str(elsewhere) in message
        assert not elsewhere.exists()
        assert case.deployed() == BOTH


# --- a full disk ---------------------------------------------------------------------------------

SMALL = 512 * 1024
"""Bytes of the host's disk."""
FEW = 64
"""Files and directories that it can hold."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The host's `srv` on a file system of its own that holds little."""
    srv = tmp_path / "hosts" / "web-1" / "srv"
    with small_file_system(srv, f"size={SMALL},nr_inodes={FEW}"):
        yield srv


OLD = {"index.html": b"<h1>hello</h1>\n", "data.bin": b"1" * 100_000}
NEW = {
    # Found out before anything is written: it does not fit.
    "bytes": {"index.html": b"<h1>new</h1>\n", "data.bin": b"2" * 300_000},
    # Found out in the middle: nothing more can be created.
    "files": {"index.html": b"<h1>new</h1>\n", **{f"page-{n}": b"a page\n" for n in range(20)}},
}


def fill_disk(disk: Path, kind: str) -> None:
    """Leave room for 200,000 bytes less than the new tree, or for five files."""
    filler = disk / "filler"
    filler.mkdir()
    if kind == "bytes":
        (filler / "0").write_bytes(b"0" * (SMALL - 200_000))
    for number in range(FEW if kind == "files" else 0):
        if os.statvfs(disk).f_ffree <= 5:
            break
        (filler / str(number)).touch()


def files_of(directory: Path) -> dict[str, bytes]:
    return {path: content for path, (kind, _, content) in tree_of(directory).items() if kind == "file"}


@pytest.mark.parametrize("kind", NEW)
async def test_a_disk_that_is_full(tmp_path: Path, small_disk: Path, kind: str) -> None:
    async with make_case(tmp_path) as case:
        case.world.app.commit({f"site/{path}": content for path, content in OLD.items()})
        host, target, resource = await add_host(case)
        await first_pass(case, host)
        assert files_of(target) == OLD
        fill_disk(small_disk, kind)
        case.world.app.commit({f"site/{path}": content for path, content in NEW[kind].items()})
        ran = await case.reconcile(expect=4)
        outcome = ran.document["outcomes"][resource]
        assert (outcome["state"], outcome["reason"]) == ("failed", "DiskFull")
        assert "; free some space or make the tree smaller" in outcome["message"]
        assert case.ready(resource) == ("False", "DiskFull", outcome["message"])
        assert f"resource={resource}" in ran.stderr and outcome["message"] in ran.stderr
        # Whatever has its final name is whole, and nothing that was there is lost.
        wanted = OLD | NEW[kind]
        found = files_of(target)
        assert set(OLD) <= set(found) <= set(wanted)
        for path, content in found.items():
            assert content in (OLD.get(path), wanted[path])
        assert case.deployed() == BOTH
        # With room again, the next pass completes; nothing of the failed one is left behind.
        shutil.rmtree(small_disk / "filler")
        done = await case.reconcile(expect=0)
        assert [step["resource"] for step in done.document["steps"]] == [resource]
        assert files_of(target) == wanted
        assert files_of(small_disk) == {f"site/{path}": content for path, content in wanted.items()}
        assert (await case.reconcile(expect=0)).document["steps"] == []
