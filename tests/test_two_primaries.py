"""Two running primaries on one repository, as real processes: one acts, the other waits and takes over."""

import os
import signal
from pathlib import Path

import trio

from tests.canaries import canary
from tests.serve_world import reader_of
from tests.serving import Line, Serving, serving
from tests.specs import STAGING
from tests.world import PATIENCE, World, beside, make_world

RENEW = {"TRUEUP_LEASE_RENEW": "5s", "TRUEUP_INTERVAL": "2s"}
"""From which all other times of the lease follow: a successor waits for 15 seconds instead of 45."""

SPEC = (
    STAGING
    + """\
services:
  api:
    repository: app
    paths: ["api/**"]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
"""
)

TASKS = """\
import fcntl, os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    log, held = Path({log!r}), Path({log!r}).with_suffix(".hold")
    running = log.with_suffix(".running").open("a")
    fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print(os.getpid(), file=running, flush=True)
    if held.exists():
        held.read_bytes()
    with log.open("a") as log:
        log.write(os.environ["TRUEUP_TAG"] + "\\n")
"""


def fill(world: World) -> Path:
    """A service whose deploys are written down in the file that is returned; two at a time fail."""
    log = world.deployed / "api"
    world.app.commit({"tasks.py": TASKS.format(log=str(log)), "api/compose.yaml": "one\n"})
    world.app.tag("v1.0.0")
    world.commit_spec(SPEC.format(app=world.app.url))
    return log


async def leads(primary: Serving, after: int = 0) -> Line:
    def find() -> Line | None:
        lines = primary.lines[after:]
        return next((line for line in lines if str(line["event"]).startswith("leading since")), None)

    return await primary.until(find, "leading since epoch …")


async def applied(primary: Serving, world: World, tag: str, after: int = 0) -> None:
    """Once this tag's deploy is recorded in git, by its own pass or by the one after it."""
    await primary.said("step applied", after=after, resource="services/staging/api")

    def recorded() -> Line | None:
        branch = "refs/heads/trueup/status"
        status = world.spec.files(branch) if world.spec.resolve(branch) else {}
        return primary.lines[-1] if tag.encode() in status.get("services/staging/api.yaml", b"") else None

    await primary.until(recorded, f"{tag} is recorded")


def pid_of_task(log: Path) -> int:
    """Of the deploy that began last."""
    return int(log.with_suffix(".running").read_text().split()[-1])


async def has_ended(process: int) -> None:
    """Once the process of a pidfd has."""
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(process)
    os.close(process)


def release(world: World, number: int) -> None:
    world.app.commit({"api/compose.yaml": f"{number}\n"})
    world.app.tag(f"v1.{number}.0")


async def test_a_killed_leader_is_succeeded_and_nothing_is_deployed_twice(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        log = fill(world)
        other = beside(world, "other")
        async with serving(world, **RENEW) as first:
            await leads(first)
            await applied(first, world, "v1.0.0")
            async with serving(other, WEBHOOK_SECRET=canary("standby-webhook"), **RENEW) as second:
                waits = await second.until(
                    lambda: next((e for e in second.lines if "leads" in str(e["event"])), None), "standby"
                )
                assert str(waits["event"]).startswith("standby: the primary on ")
                health = (await second.ask("GET", "/health")).json()
                assert (health["role"], health["ready"], health["live"]) == ("standby", False, True)
                refused = await second.ask("POST", "/webhook", content=b"{}")
                assert (refused.status_code, refused.json()["reason"]) == (503, "Standby")
                assert (await first.ask("GET", "/health")).json()["role"] == "leader"
                once = await other.trueup("reconcile", expect=None)
                assert once.exit_code == 1 and "another trueup works on" in once.stderr

                told = len(first.lines)
                release(world, 1)
                await applied(first, world, "v1.1.0", told)
                # It dies while a deploy runs that would never end: that one does not outlive it for long.
                held = log.with_suffix(".hold")
                os.mkfifo(held)
                release(world, 2)
                running = await reader_of(held)
                held.unlink()
                task = os.pidfd_open(pid_of_task(log))
                assert await first.end(signal.SIGKILL) == -signal.SIGKILL
                await has_ended(task)
                os.close(running)
                await leads(second)
                await applied(second, world, "v1.2.0")
                assert (await second.ask("GET", "/health")).json()["role"] == "leader"
                assert log.read_text().split() == ["v1.0.0", "v1.1.0", "v1.2.0"]

                # A pass by hand on another machine does nothing while somebody leads.
                third = beside(world, "third")
                by_hand = await third.trueup("reconcile", "--force", "services/staging/api", expect=1)
                assert "acts on this repository now; nothing was done here" in by_hand.stderr
                assert await second.end() == 0
        # The lease was let go of, so that nobody waits for the one that ended.
        async with serving(world, **RENEW) as first:
            await leads(first)
            await first.said("serving")
            assert await first.end() == 0
        assert log.read_text().split() == ["v1.0.0", "v1.1.0", "v1.2.0"]
