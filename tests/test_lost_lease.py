"""A running primary that loses its lease, or cannot renew it: as a real process, with a real agent."""

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.git.process import GitOptions
from reconciler.keys import read_key_file
from reconciler.lease import Lease, released
from reconciler.lease_ref import LeaseRef
from tests.canaries import canary, may_hold
from tests.contracts.infisical_double import InfisicalDouble
from tests.serve_world import reader_of
from tests.serving import Line, Serving, serving
from tests.test_two_primaries import RENEW, fill, has_ended, leads, pid_of_task, release
from tests.vault import vault, vault_environment
from tests.world import Host, World, make_world

MORE = """\
secret_sources:
{vault}
projects:
  site:
    repository: app
    environment: staging
    path: api
    sync:
      files: [{{path: site.env, format: dotenv, secrets: [vault]}}]
      nodes: [{{labels: {{group: web}}, target_path: "{target}"}}]
nodes: {{}}
"""


@dataclass
class Place:
    world: World
    double: InfisicalDouble
    log: Path
    """Of deploys."""
    host: Host

    @property
    def placed(self) -> Path:
        return self.host.srv / "site/compose.yaml"

    @property
    def deployed(self) -> list[str]:
        return self.log.read_text().split()


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as double:
        yield double


@asynccontextmanager
async def leading(root: Path, double: InfisicalDouble) -> AsyncIterator[tuple[Place, Serving]]:
    """A primary that leads, has deployed v1.0.0 and synced it to a host."""
    async with make_world(root) as (world, relay):
        double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("lost-lease")}
        world.environment |= vault_environment(double)
        log = fill(world)
        target = root / "hosts/web-1/srv/site"
        may_hold(target / "site.env")
        spec = world.spec.read("trueup.yaml").decode()
        source = vault(double, cache_ttl="1s", refresh_interval="0s")
        world.commit_spec(spec + MORE.format(vault=source, target=target))
        host = await world.add_host("web-1", relay.address, "group=web")
        async with serving(world, **RENEW) as primary:
            await leads(primary)
            await world.start_agent(host)
            await primary.said("step applied", action="sync")
            it = Place(world, double, log, host)
            await recorded(primary, it, "v1.0.0")
            assert it.placed.read_text() == "one\n"
            yield it, primary


async def recorded(primary: Serving, it: Place, tag: str) -> None:
    """Once git says that service and project have this tag."""

    def found() -> Line | None:
        return {} if is_at(it, "services/", tag) and is_at(it, "projects/", tag) else None

    await primary.until(found, f"{tag} recorded")


def is_at(it: Place, kind: str, tag: str) -> bool:
    files = it.world.status() if "refs/heads/trueup/status" in it.world.spec.refs() else {}
    [text] = [text for path, text in files.items() if path.startswith(kind)] or [b""]
    return f"lastAppliedRevision: {tag}@".encode() in text


def epoch_of(line: object) -> int:
    return int(str(line).rpartition(" ")[2])


async def test_one_that_is_succeeded_stands_by_and_leads_again(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    async with leading(tmp_path, double) as (it, primary):
        world, seen = it.world, len(primary.lines)
        epoch = epoch_of((await leads(primary))["event"])
        # Somebody else has it, as after a pause of this machine, and keeps it for three minutes.
        key = read_key_file(world.state / "master.key")
        options = GitOptions(allow_local=True)
        place = LeaseRef(world.spec.url, tmp_path / "other.git", options, key, deadline=60)
        other = Lease(holder="other", host="elsewhere", epoch=epoch + 1, renew=60)
        oid = None
        while oid is None:
            found = await place.read()
            assert found.lease is not None
            assert (found.lease.epoch, found.lease.released) == (epoch, False)
            oid = await place.put(other, expected=found.oid)

        why = "the primary on elsewhere has taken the lease"
        await primary.said(f"no longer leading: {why}; what was under way is broken off", after=seen)
        again = await primary.said("serving", after=seen)
        primary.http = f"http://{again['http']}"
        await primary.said("standby: the primary on elsewhere leads", after=seen)
        assert (await primary.ask("GET", "/health")).json()["role"] == "standby"
        release(world, 1)
        refused = await primary.ask_locally("POST", "/api/reconcile")
        assert (refused.status_code, refused.json()["reason"]) == (503, "Standby")
        assert primary.process.poll() is None
        assert (it.deployed, it.placed.read_text()) == (["v1.0.0"], "one\n")

        assert await place.put(released(other), expected=oid) is not None
        line = await leads(primary, seen)
        assert epoch_of(line["event"]) == epoch + 2
        await recorded(primary, it, "v1.1.0")
        assert (it.deployed, it.placed.read_text()) == (["v1.0.0", "v1.1.0"], "1\n")
        # Its agent was shown the new epoch, and would refuse an older one from now on.
        assert (it.host.state / "epoch").read_text().strip() == str(epoch + 2)
        assert (await primary.ask("GET", "/health")).json()["role"] == "leader"
        assert await primary.end() == 0
    assert not unfinished_passes(world)


async def test_one_that_is_cut_off_from_git_only_keeps_hosts_as_they_are(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    async with leading(tmp_path, double) as (it, primary):
        world = it.world
        held = it.log.with_suffix(".hold")
        os.mkfifo(held)
        release(world, 1)
        running = await reader_of(held)
        held.unlink()
        task = os.pidfd_open(pid_of_task(it.log))
        await primary.until(lambda: {} if is_at(it, "projects/", "v1.1.0") else None, "the sync recorded")
        seen = len(primary.lines)
        gone = world.spec.path.rename(tmp_path / "gone.git")

        # A deploy that runs is broken off before anybody else may begin it.
        await primary.said("step failed", after=seen, reason="LeaseLost")
        await has_ended(task)
        os.close(running)
        assert (await primary.ask("GET", "/health")).json()["role"] == "unsure"

        # A host is brought back to what is recorded of it, and nothing else is done.
        seen, asked = len(primary.lines), len(double.requests)
        assert it.placed.read_text() == "1\n"
        it.placed.write_text("by hand\n")
        (it.placed.parent / "site.env").unlink()
        assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202
        await primary.said("nodes are kept at what was applied", after=seen)
        await primary.said("step applied", after=seen, action="sync")
        # A pass at the interval may have looked before the second of the two was gone.
        await primary.until(lambda: {} if (it.placed.parent / "site.env").exists() else None, "the file")
        assert it.placed.read_text() == "1\n"
        assert canary("lost-lease") in (it.placed.parent / "site.env").read_text()
        assert len(double.requests) == asked
        assert it.deployed == ["v1.0.0"]

        gone.rename(world.spec.path)
        seen = len(primary.lines)
        await primary.said("the lease is renewed again", after=seen)
        await recorded(primary, it, "v1.1.0")
        assert (it.deployed, it.placed.read_text()) == (["v1.0.0", "v1.1.0"], "1\n")
        assert await primary.end() == 0
    assert not unfinished_passes(world)


def unfinished_passes(world: World) -> list[object]:
    with closing(sqlite3.connect(world.state / "journal.sqlite")) as journal:
        return journal.execute("SELECT id FROM passes WHERE ended_at = ''").fetchall()
