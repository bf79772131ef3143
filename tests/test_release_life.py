"""The life of a service over two environments: everything that happens to its releases, in one sequence.

Bare repositories, the real commands, and a task that writes down what it deployed with.
"""

from pathlib import Path

from tests.operators import REF, records
from tests.releasing import Life, begin_life

PRODUCTION = "environments/production"
RELEASES = 20
BY_HAND = """\
version: 1
kind: promote
by: Anna Example <anna@example.org>
at: 2026-03-01T12:00:00Z
environment: production
unit: app
source: staging
tag: v0.2.1
commit: {commit}
"""
PEOPLE = "Test Author <author@example.org>"


async def test_the_life_of_a_service(tmp_path: Path) -> None:
    async with begin_life(tmp_path) as life:
        spec = life.world.spec.resolve("refs/heads/main")
        assert spec
        await many_staging_releases(life, spec)
        await promotion(life, spec)
        await hotfix_while_staging_moves_on(life)
        await promotion_without_the_hotfix(life)
        await failed_deploy(life)
        await hold_after_the_failure(life)
        await rollback_and_redeploy(life)
        await history_at_the_end(life)


async def many_staging_releases(life: Life, spec: str) -> None:
    """Each change of the service's paths gets the next number; what concerns nobody gets none."""
    world, expected = life.world, {}
    assert (await world.reconcile())["outcomes"]["releases/staging/app"]["state"] == "succeeded"
    expected["v0.1.0"] = world.app.resolve("refs/heads/main")
    for number in range(1, RELEASES + 1):
        world.app.commit({"docs/notes": str(number)})  # with a pass of its own now and then
        if number % 7 == 0:
            before = world.status_commits()
            assert (await world.reconcile())["steps"] == []
            assert (life.tags(), world.status_commits()) == (expected, before)
        expected[f"v0.1.{number}"] = life.change(str(number))
        done = await world.reconcile()
        assert sorted(step["resource"] for step in done["steps"]) == [
            "releases/staging/app",
            "services/staging/web",
        ]
    assert life.tags() == expected
    assert life.deploys("staging") == [f"v0.1.{number} {number} one" for number in range(RELEASES + 1)]
    assert life.deploys("production") == []
    assert life.trailers("v0.1.0")["Triggered-By"] == "the first release of main"
    assert life.trailers(f"v0.1.{RELEASES}") == {
        "Environment": "staging",
        "Unit": "app",
        "Spec": f"main@sha1:{spec}",
        "Triggered-By": "main changed: web/**",
    }


async def promotion(life: Life, spec: str) -> None:
    """Production gets the commit that staging runs, under a number of its own; only once it is asked for."""
    world, tags = life.world, life.tags()
    refused = await world.trueup("promote", "staging", "production", expect=1)
    assert "--confirm deploy" in refused.stderr
    assert (records(world.spec), life.tags()) == ([], tags)
    await life.promote("--reason", "the week's work")
    assert life.tags() == tags  # who asks needs no right to write to the code
    plan = await world.trueup("plan", "-o", "json", "--detailed-exitcode", expect=2)
    assert [step["resource"] for step in plan.document["steps"]] == [
        "releases/production/app",
        "services/production/web",
    ]
    assert life.tags() == tags
    await world.reconcile()
    commit = tags["v0.1.20"]
    assert life.tags() == tags | {"v0.2.0": commit}
    assert life.trailers("v0.2.0") == {
        "Environment": "production",
        "Unit": "app",
        "Spec": f"main@sha1:{spec}",
        "Promoted-From": "v0.1.20",
        "Triggered-By": f"promote by {PEOPLE}: the week's work",
        "Decision": "1",
    }
    assert life.deploys("production") == ["v0.2.0 20 one"]
    assert life.runs("production") == ("v0.2.0", commit, "promotion", "succeeded")


async def hotfix_while_staging_moves_on(life: Life) -> None:
    """The fix goes to production alone, with the settings that run there; a merge of the spec does not."""
    world, branch = life.world, "hotfix/app-v0.2.0"
    life.level = "two"
    life.merge_spec()
    done = await world.reconcile()
    assert [step["resource"] for step in done["steps"]] == ["services/staging/web"]
    await world.trueup("hotfix", "production")
    assert world.app.resolve(f"refs/heads/{branch}") == life.tags()["v0.2.0"]
    life.change("21")
    fix = world.app.commit({"web/fix": "fixed"}, branch=branch)
    await world.reconcile()
    assert life.runs("staging")[0] == "v0.2.1"
    before = life.deploys("staging")
    await world.trueup("hotfix", "production", "--confirm", "deploy")
    await world.reconcile()
    assert (life.tags()["v0.2.2"], life.runs("production")) == (fix, ("v0.2.2", fix, "hotfix", "succeeded"))
    said = life.trailers("v0.2.2")
    assert (said["Environment"], said["Decision"], said["Triggered-By"]) == (
        *("production", "2"),
        f"hotfix by {PEOPLE}",
    )
    assert said["Spec"] == life.trailers("v0.2.0")["Spec"]
    assert life.deploys("production")[1:] == ["v0.2.2 20 one"]
    assert (life.deploys("staging"), life.runs("staging")[0]) == (before, "v0.2.1")


async def promotion_without_the_hotfix(life: Life) -> None:
    """A promotion that would lose the fix is refused and told; once it is merged, it brings everything."""
    world, tags = life.world, life.tags()
    asked = await world.trueup("promote", "staging", "production", "--confirm", "deploy", expect=1)
    assert "v0.2.1 lacks commits of the hotfix v0.2.2" in asked.stderr
    assert len(records(world.spec)) == 2
    # Who goes past the command does not go past the rule.
    world.spec.commit({"records/000003.yaml": BY_HAND.format(commit=tags["v0.2.1"])}, branch="trueup/control")
    await world.reconcile(expect=4)
    assert (life.tags(), life.runs("production")[0]) == (tags, "v0.2.2")
    status, reason, message = life.told("production")
    assert (status, reason) == ("False", "ReleaseRefused")
    assert "v0.2.1 lacks commits of the hotfix v0.2.2" in message
    assert "lacks commits of the hotfix" in (await world.trueup("get", PRODUCTION, "-o", "yaml")).stdout
    tree = world.app.git("merge-tree", "--write-tree", "main", "hotfix/app-v0.2.0")
    merged = world.app.git("commit-tree", tree, "-p", "main", "-p", "hotfix/app-v0.2.0", "-m", "Merge")
    world.app.git("update-ref", "refs/heads/main", merged)
    await world.reconcile()
    assert life.runs("staging")[:2] == ("v0.2.3", merged)
    await life.promote()
    await world.reconcile()
    assert life.runs("production") == ("v0.3.0", merged, "promotion", "succeeded")
    assert life.told("production")[0] == "True"
    assert life.deploys("production")[2:] == ["v0.3.0 21 two"]


async def failed_deploy(life: Life) -> None:
    """What fails in production is returned from in the same pass, held, and told."""
    world = life.world
    life.level = "three"
    life.merge_spec()
    life.change("broken")
    await world.reconcile()
    await life.promote()
    done = await world.reconcile(expect=4)
    assert life.deploys("production")[3:] == ["v0.4.0 broken three", "v0.3.0 21 two"]
    assert done["outcomes"]["services/production/web"]["state"] == "succeeded"
    tag, commit, kind, outcome = life.runs("production")
    assert (tag, commit, kind, outcome) == ("v0.3.0", life.tags()["v0.3.0"], "rollback", "succeeded")
    [hold] = life.environment("production")["holds"]
    assert (hold["unit"], hold["reason"]) == ("app", "RolledBack")
    status, reason, message = life.told("production")
    assert (status, reason) == ("False", "HoldActive")
    assert "it was rolled back from v0.4.0, with which services/production/web failed" in message
    got = await world.trueup("get", PRODUCTION)
    assert "HoldActive" in got.stdout
    assert life.runs("staging")[3] == "succeeded"


async def hold_after_the_failure(life: Life) -> None:
    """The hold keeps back what would come by itself, pass after pass; who promotes by command ends it."""
    world = life.world
    life.policy = ", soak: 0s"
    life.merge_spec()
    life.change("22")
    for _ in range(2):
        await world.reconcile()
    assert (life.runs("staging")[0], life.runs("production")[0]) == ("v0.4.1", "v0.3.0")
    [waiting] = life.environment("production")["waiting"]
    assert (waiting["tag"], waiting["reason"]) == ("v0.4.1", "HoldActive")
    before = world.status_commits()
    await world.reconcile()
    assert world.status_commits() == before
    await life.promote()
    await world.reconcile()
    assert life.runs("production") == ("v0.5.0", life.tags()["v0.4.1"], "promotion", "succeeded")
    assert life.environment("production").get("holds", []) == []
    assert life.told("production")[0] == "True"
    assert life.deploys("production")[5:] == ["v0.5.0 22 three"]


async def rollback_and_redeploy(life: Life) -> None:
    """Back to what ran before, settings and all, where it stays; `--force` deploys just that once more."""
    world, tags = life.world, life.tags()
    await world.trueup("rollback", "production", "--reason", "slow")
    await world.reconcile()
    assert life.runs("production") == ("v0.3.0", tags["v0.3.0"], "rollback", "succeeded")
    assert life.deploys("production")[6:] == ["v0.3.0 21 two"]
    assert life.told("production")[1] == "HoldActive"
    await world.reconcile("--force", "services/production/web")
    assert life.deploys("production")[7:] == ["v0.3.0 21 two"]
    assert life.tags() == tags
    before = world.status_commits()
    again = await world.reconcile()
    assert (again["steps"], world.status_commits()) == ([], before)


async def history_at_the_end(life: Life) -> None:
    """It tells what ran, newest first; no number was given to two commits, and no tag has moved."""
    world, tags = life.world, life.tags()
    rows = (await world.trueup("history", "production", "-o", "json")).document["releases"]
    told = [(row["tag"], row["kind"], row["outcome"], row["promotedFrom"]) for row in rows]
    assert told == [
        ("v0.3.0", "rollback", "succeeded", "v0.2.3"),
        ("v0.5.0", "promotion", "succeeded", "v0.4.1"),
        ("v0.3.0", "rollback", "succeeded", "v0.2.3"),
        ("v0.4.0", "promotion", "failed", "v0.3.1"),
        ("v0.3.0", "promotion", "succeeded", "v0.2.3"),
        ("v0.2.2", "hotfix", "succeeded", ""),
        ("v0.2.0", "promotion", "succeeded", "v0.1.20"),
    ]
    assert [row["current"] for row in rows] == [True, *[False] * 6]
    assert all(row["to"] == tags[row["tag"]] for row in rows)
    assert [row["from"] for row in rows] == [*(row["to"] for row in rows[1:]), ""]
    assert rows[0]["triggeredBy"] == f"rollback by {PEOPLE}: slow"
    assert "services/production/web failed with v0.4.0" in rows[2]["triggeredBy"]
    assert "services/production/web: DeployFailed" in rows[3]["reason"]
    levels = [row["specRevision"] for row in rows]
    assert levels[0] == levels[2] == levels[4] != levels[1]
    staging = (await world.trueup("history", "staging", "-o", "json")).document["releases"]
    assert [row["tag"] for row in staging][:5] == ["v0.4.1", "v0.3.1", "v0.2.3", "v0.2.1", "v0.1.20"]
    expected = [f"v0.1.{number}" for number in range(RELEASES + 1)]
    expected += ["v0.2.0", "v0.2.1", "v0.2.2", "v0.2.3", "v0.3.0", "v0.3.1", "v0.4.0", "v0.4.1", "v0.5.0"]
    assert sorted(tags) == sorted(expected)
    assert [life.trailers(tag)["Environment"] for tag in ("v0.2.1", "v0.4.1", "v0.5.0")] == (
        ["staging", "staging", "production"]
    )
    assert [record.number for record in records(world.spec)] == list(range(1, 8))
    assert world.spec.resolve(REF)
