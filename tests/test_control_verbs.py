"""The verbs with which operators decide, run as commands against real repositories."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from reconciler.status.documents import EnvironmentStatus, Release, Summary, UnitStatus
from reconciler.status.files import path_of, render_document
from tests.operators import REF, SPEC, STATUS, operator, records, refused
from tests.serving import serving
from tests.world import make_world


async def test_a_decision_is_a_commit_in_the_operators_name(tmp_path: Path) -> None:
    async with operator(tmp_path) as world:
        ran = await world.trueup("hold", "production", "--reason", "a sale")
        [found] = records(world.spec)
        assert (found.kind, found.environment, found.unit, found.reason) == (
            *("hold", "production", "", "a sale"),
        )
        assert found.by == "Test Author <author@example.org>"
        assert world.spec.git("log", "-1", "--format=%an <%ae>|%s|%b", REF) == (
            "Test Author <author@example.org>|hold production|a sale"
        )
        commit = world.spec.resolve(REF) or ""
        assert ran.stdout.splitlines() == [
            f"recorded 1: hold production ({commit[:12]})",
            "the next pass acts on it: `trueup reconcile`, or a running `trueup serve` by itself",
        ]


async def test_the_name_is_that_of_the_operators_git(tmp_path: Path) -> None:
    async with operator(tmp_path) as world:
        unset = {f"GIT_{role}_{part}": "" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        for name in unset:
            del world.environment[name]
        config = tmp_path / "gitconfig"
        config.write_text("[user]\n\tname = Anna\n\temail = anna@example.org\n")
        await world.trueup("freeze", GIT_CONFIG_GLOBAL=str(config))
        assert records(world.spec)[0].by == "Anna <anna@example.org>"
        config.write_text("[user]\n\tuseConfigOnly = true\n")
        await world.trueup("unfreeze", GIT_CONFIG_GLOBAL=str(config))
        assert records(world.spec)[1].by.endswith("@localhost>")


async def test_every_verb_prints_what_it_recorded_as_one_document(tmp_path: Path) -> None:
    async with operator(tmp_path) as world:
        verbs: list[tuple[str, ...]] = [
            ("hold", "production", "--unit", "app"),
            ("unhold", "production"),
            ("freeze", "--reason", "an incident"),
            ("unfreeze",),
            ("suspend", "services/web"),
            ("resume", "services/production/web"),
            ("override", "lab", "--for", "2h", "--reason", "a bug"),
        ]
        for number, verb in enumerate(verbs, start=1):
            document = (await world.trueup(*verb, "-o", "json")).document
            [told] = document["records"]
            assert (document["version"], told["number"], told["kind"]) == (1, number, verb[0])
            assert document["commit"] == world.spec.resolve(REF)
        found = records(world.spec)
        assert [each.kind for each in found] == [verb[0] for verb in verbs]
        assert found[-1].until is not None
        assert round((found[-1].until - found[-1].at).total_seconds()) == 7200


async def test_a_refusal_is_one_line_and_records_nothing(tmp_path: Path) -> None:
    async with operator(tmp_path) as world:
        assert await refused(world, "hold", "prodution") == (
            "there is no environment 'prodution'; did you mean production?"
        )
        assert await refused(world, "override", "lab", "--for", "soon", "--reason", "x") == (
            "--for: 'soon' is not accepted; give a duration such as 60s, 5m or 24h"
        )
        assert await refused(world, "unfreeze") == "nothing is frozen"


async def test_a_running_primary_is_asked_for_a_pass(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        world.app.commit({"file": "content"})
        world.commit_spec(SPEC.replace("URL", world.app.url))
        async with serving(world) as primary:
            await primary.said("pass ended")
            before = len(primary.lines)
            ran = await world.trueup("freeze")
            assert ran.stdout.splitlines()[-1] == "the running primary was asked for a pass"
            await primary.said("pass ended", after=before)
            assert yaml.safe_load(world.status()["summary.yaml"])["control"] == 1


async def test_a_branch_that_lost_what_a_pass_has_seen_takes_no_decision(tmp_path: Path) -> None:
    async with operator(tmp_path) as world:
        summary = render_document(Summary(id="summary", control=3))
        world.spec.commit({"summary.yaml": summary}, branch=STATUS, root=True)
        await world.trueup("freeze", expect=1)
        assert "ends with record 0, and a pass has seen record 3 already" in await refused(world, "freeze")


def release(tag: str, day: int, **fields: Any) -> Release:
    return Release(tag=tag, commit=f"{day:040}", recorded_at=datetime(2026, 3, day, tzinfo=UTC), **fields)


async def test_history_has_what_happened_newest_first(tmp_path: Path) -> None:
    async with operator(tmp_path) as world:
        assert "no releases yet" in (await world.trueup("history")).stdout
        production = EnvironmentStatus(
            id="environments/production",
            units={
                "app": UnitStatus(
                    release=release(
                        "v1.2.0",
                        3,
                        kind="promotion",
                        promoted_from="v1.1.4",
                        previous=f"{1:040}",
                        triggered_by="promote by Anna <anna@example.org>",
                        decision=7,
                        outcome="failed",
                        ended_at=datetime(2026, 3, 4, tzinfo=UTC),
                        reason="services/production/web: DeployFailed",
                    ),
                    history=(release("v1.1.0", 1, outcome="succeeded"),),
                ),
                "other": UnitStatus(release=release("other/v0.1.0", 2)),
            },
        )
        staging = EnvironmentStatus(
            id="environments/staging", units={"app": UnitStatus(release=release("v1.1.4", 2))}
        )
        files = {path_of(each.id): render_document(each) for each in (production, staging)}
        world.spec.commit(files, branch=STATUS, root=True)
        rows = (await world.trueup("history", "production", "-o", "json")).document["releases"]
        assert [(row["unit"], row["tag"], row["current"]) for row in rows] == [
            ("app", "v1.2.0", True),
            ("other", "other/v0.1.0", True),
            ("app", "v1.1.0", False),
        ]
        assert rows[0] == {
            "at": "2026-03-03T00:00:00Z",
            "environment": "production",
            "unit": "app",
            "tag": "v1.2.0",
            "kind": "promotion",
            "current": True,
            "from": f"{1:040}",
            "to": f"{3:040}",
            "specRevision": "",
            "promotedFrom": "v1.1.4",
            "triggeredBy": "promote by Anna <anna@example.org>",
            "decision": 7,
            "outcome": "failed",
            "endedAt": "2026-03-04T00:00:00Z",
            "reason": "services/production/web: DeployFailed",
        }
        every = yaml.safe_load((await world.trueup("history", "-o", "yaml")).stdout)["releases"]
        assert [row["environment"] for row in every] == ["production"] * 3 + ["staging"]
        table = (await world.trueup("history")).stdout
        assert "000000000000" in table
        assert "failed:" in table and "promotion" in table
        assert await refused(world, "history", "prodution") == (
            "there is no environment with releases 'prodution'; did you mean production?"
        )
