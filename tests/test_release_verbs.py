"""`trueup promote`, `hotfix` and their like, run as commands against real repositories without a primary."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reconciler.status.documents import EnvironmentStatus, Release, UnitStatus
from reconciler.status.files import path_of, render_document
from tests.operators import REF, STATUS, operator, records, refused
from tests.world import World

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Released:
    """Production runs v1.1.0 at the first commit, staging v1.1.1 at the second; main is at the third."""

    world: World
    zeroth: str
    first: str
    second: str
    third: str

    def run_in_production(self, release: Release) -> None:
        units = {"app": UnitStatus(release=release)}
        status = EnvironmentStatus(id="environments/production", units=units)
        self.world.spec.commit({path_of(status.id): render_document(status)}, branch=STATUS)


@asynccontextmanager
async def released(root: Path) -> AsyncIterator[Released]:
    async with operator(root) as world:
        zeroth, first, second, third = (world.app.commit({"file": str(number)}) for number in range(4))
        for tag, commit in (("v1.0.0", zeroth), ("v1.1.0", first), ("v1.1.1", second)):
            world.app.tag(tag, commit)
        production = EnvironmentStatus(
            id="environments/production",
            units={
                "app": UnitStatus(
                    release=Release(tag="v1.1.0", commit=first, recorded_at=NOW, outcome="succeeded"),
                    history=(Release(tag="v1.0.0", commit=zeroth, recorded_at=NOW, outcome="succeeded"),),
                )
            },
        )
        staging = EnvironmentStatus(
            id="environments/staging",
            units={
                "app": UnitStatus(
                    release=Release(tag="v1.1.1", commit=second, recorded_at=NOW, outcome="succeeded")
                )
            },
        )
        files = {path_of(each.id): render_document(each) for each in (production, staging)}
        world.spec.commit(files, branch=STATUS, root=True)
        yield Released(world, zeroth, first, second, third)


async def test_a_promotion_is_recorded_once_it_is_confirmed(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        assert await refused(at.world, "promote", "staging", "production") == (
            f"this would promote app to production from staging: v1.1.1 at {at.second[:12]} "
            f"(the next pass: promotion: v1.1.0 -> v1.2.0 from v1.1.1 at {at.second[:12]} "
            "(promote by Test Author <author@example.org>)); say --confirm deploy to have it done"
        )
        ran = await at.world.trueup("promote", "staging", "production", "--confirm", "deploy")
        [found] = records(at.world.spec)
        assert (found.kind, found.environment, found.unit, found.source, found.tag, found.commit) == (
            *("promote", "production", "app", "staging", "v1.1.1", at.second),
        )
        assert ran.stdout.startswith(
            f"recorded 1: promote app to production from staging: v1.1.1 at {at.second[:12]}"
        )
        assert "was asked for already" in await refused(at.world, "promote", "staging", "production")
        wrong = await at.world.trueup("promote", "staging", "production", "--confirm", "yes", expect=1)
        assert "'yes' is not 'deploy'" in wrong.stderr


async def test_a_promotion_that_the_rules_speak_against_is_refused_early(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        fix = at.world.app.commit({"file": "fixed"}, branch="fix", start=at.first)
        at.world.app.tag("v1.1.2", fix)
        at.run_in_production(Release(tag="v1.1.2", commit=fix, recorded_at=NOW, kind="hotfix"))
        assert await refused(at.world, "promote", "staging", "production", "--confirm", "deploy") == (
            "v1.1.1 lacks commits of the hotfix v1.1.2 that app runs in production; "
            "merge them first, or say --drop-hotfix"
        )
        await at.world.trueup("promote", "staging", "production", "--drop-hotfix", "--confirm", "deploy")
        assert records(at.world.spec)[0].drop_hotfix


async def test_what_keeps_a_promotion_back_is_told(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        await at.world.trueup("freeze")
        ran = await at.world.trueup("promote", "staging", "production", "--confirm", "deploy")
        assert "app: it waits: everything is frozen; `trueup unfreeze` ends it" in ran.stdout.splitlines()


async def test_a_decision_needs_no_access_to_the_code(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        at.world.app.path.rename(tmp_path / "elsewhere.git")
        ran = await at.world.trueup("promote", "staging", "production", "--confirm", "deploy")
        assert "app: the next pass judges it; app cannot be read here" in ran.stdout
        assert records(at.world.spec)[0].commit == at.second


async def test_a_release_is_at_the_tip_of_the_branch(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        document = (await at.world.trueup("release", "staging", "--bump", "major", "-o", "json")).document
        [told] = document["records"]
        assert (told["commit"], told["bump"], told["unit"]) == (at.third, "major", "app")


async def test_a_release_where_releases_are_promoted_is_at_what_the_source_runs(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        ran = await at.world.trueup("release", "production", "--bump", "major")
        [found] = records(at.world.spec)
        assert (found.source, found.tag, found.commit) == ("staging", "v1.1.1", at.second)
        assert "app: the next pass: promotion: v1.1.0 -> v2.0.0 from v1.1.1" in ran.stdout


async def test_a_tag_that_is_there_is_taken_over_as_the_first_release(tmp_path: Path) -> None:
    async with operator(tmp_path) as world:
        commit = world.app.commit({"file": "old"})
        world.app.tag("v1.3.0", commit)
        assert await refused(world, "release", "production", "--tag", "v1.3.1") == (
            "there is no tag in app 'v1.3.1'; did you mean v1.3.0?"
        )
        assert "has its number" in await refused(
            world, "release", "production", "--tag", "v1.3.0", "--bump", "major"
        )
        ran = await world.trueup("release", "production", "--tag", "v1.3.0")
        [found] = records(world.spec)
        assert (found.kind, found.tag, found.commit, found.source) == ("release", "v1.3.0", commit, "")
        assert "app: the next pass: release: v1.3.0" in ran.stdout


async def test_only_a_first_release_is_taken_over(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        assert "an existing tag can only be its first one" in await refused(
            at.world, "release", "production", "--tag", "v1.0.0"
        )


async def test_a_rollback_names_the_release_before(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        await at.world.trueup("rollback", "production", "--reason", "it is slow")
        [found] = records(at.world.spec)
        assert (found.kind, found.tag, found.commit, found.reason) == (
            *("rollback", "v1.0.0", at.zeroth, "it is slow"),
        )
        assert await refused(at.world, "approve", "production") == "production asks for no approval"


# --- hotfix ------------------------------------------------------------------------------------


async def test_a_hotfix_begins_with_a_branch_at_what_runs_and_ends_with_its_tip(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        app, branch = at.world.app, "hotfix/app-v1.1.0"
        ran = await at.world.trueup("hotfix", "production")
        assert app.resolve(f"refs/heads/{branch}") == at.first
        assert ran.stdout.splitlines() == [
            f"the branch {branch} begins at {at.first[:12]}: v1.1.0, which production runs of app",
            f"next, in a clone of {app.url}:",
            "  git fetch origin",
            f"  git switch {branch}",
            "  git commit",
            f"  git push origin {branch}",
            "  trueup hotfix production --unit app --confirm deploy",
        ]
        assert at.world.spec.resolve(REF) is None
        again = (await at.world.trueup("hotfix", "production", "-o", "json")).document
        assert (again["created"], again["branch"], again["commit"]) == (False, branch, at.first)
        assert await refused(at.world, "hotfix", "production", "--confirm", "deploy") == (
            f"the branch {branch} has no commit over v1.1.0, which production runs of app; "
            "commit the fix there, and push it"
        )
        fix = app.commit({"file": "fixed"}, branch=branch)
        assert await refused(at.world, "hotfix", "production") == (
            f"this would hotfix app in production: {fix[:12]} "
            f"(the next pass: hotfix: v1.1.0 -> v1.1.2 at {fix[:12]} "
            "(hotfix by Test Author <author@example.org>)); say --confirm deploy to have it done"
        )
        await at.world.trueup("hotfix", "production", "--confirm", "deploy")
        [found] = records(at.world.spec)
        assert (found.kind, found.unit, found.commit, found.tag) == ("hotfix", "app", fix, "")
        assert app.resolve(f"refs/heads/{branch}") == fix
        assert "was asked for already" in await refused(
            at.world, "hotfix", "production", "--confirm", "deploy"
        )


async def test_a_hotfix_descends_from_what_runs(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        at.world.app.commit({"other": "history"}, branch="aside", root=True)
        assert await refused(
            at.world, "hotfix", "production", "--fix-branch", "aside", "--confirm", "deploy"
        ) == (
            "the branch aside does not descend from v1.1.0, which production runs of app; "
            f"begin the fix at {at.first[:12]}, or promote what it holds"
        )
        assert (
            await refused(at.world, "hotfix", "production", "--fix-branch", "nowhere", "--confirm", "deploy")
            == "app has no branch 'nowhere'; `trueup hotfix production --unit app` makes it"
        )


async def test_a_hotfix_may_be_a_tag_that_is_there(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        fix = at.world.app.commit({"file": "fixed"}, branch="fix", start=at.first)
        at.world.app.tag("v1.1.9", fix)
        assert (
            await refused(at.world, "hotfix", "production", "--tag", "v1.1.8", "--confirm", "deploy")
            == "there is no tag in app 'v1.1.8'; did you mean v1.1.9?"
        )
        assert "this would hotfix app in production: v1.1.9" in await refused(
            at.world, "hotfix", "production", "--tag", "v1.1.9"
        )
        await at.world.trueup("hotfix", "production", "--tag", "v1.1.9", "--confirm", "deploy")
        [found] = records(at.world.spec)
        assert (found.tag, found.commit) == ("v1.1.9", fix)


async def test_who_may_not_push_code_gets_gits_own_commands(tmp_path: Path) -> None:
    async with released(tmp_path) as at:
        hook = at.world.app.path / "hooks" / "pre-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\necho read only >&2\nexit 1\n")
        hook.chmod(0o755)
        ran = await at.world.trueup("hotfix", "production", "--fix-branch", "fix-login")
        assert at.world.app.resolve("refs/heads/fix-login") is None
        lines = ran.stdout.splitlines()
        assert "the branch fix-login could not be made from here: " in lines[0] and "read only" in lines[0]
        assert f"  git switch -c fix-login {at.first}" in lines
        assert lines[-1] == "  trueup hotfix production --unit app --fix-branch fix-login --confirm deploy"
