"""Secrets pushed into GitHub by whole passes: real commands, the double, values opened and compared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bad_world import Case, error, make_case
from tests.bad_world import errors as error_lines
from tests.canaries import canary, may_hold
from tests.contracts.github_double import Fault, GitHubDouble, slow_down

REPO = "acme/billing"
TARGET = "targets/billing"

TARGETS = """\
secret_targets:
  billing:
    kind: github_actions
    repo: acme/billing
    from: local
    keys: [API_KEY, {key: REDIS_URL, name: CACHE_URL}]
    groups: [[DB_USER, DB_PASSWORD]]
"""


@dataclass
class Pushing:
    case: Case
    double: GitHubDouble

    def fill(self, **values: str) -> None:
        lines = [f"{name}={canary(value)}" for name, value in values.items()]
        may_hold(self.case.env_file).write_text("\n".join(lines) + "\n")

    def add_fallback(self, other: Path) -> None:
        """A file with other values, which serves while the source does not."""
        may_hold(other).write_text("".join(f"{name}={canary('fallback')}\n" for name in VALUES))
        other.chmod(0o600)
        self.case.head = self.case.head.replace("kind: env_file,", "kind: env_file, fallback: [other],")
        self.case.head += f'  other: {{kind: env_file, file: "{other}"}}\n'
        self.commit()

    def commit(self, targets: str = TARGETS, services: str = "") -> None:
        self.case.commit(self.case.head + targets + services)

    async def reconcile(self, *arguments: str, expect: int = 0) -> Any:
        ran = await self.case.reconcile(*arguments, expect=expect)
        return ran.document

    async def plan(self) -> list[tuple[str, str]]:
        document = (await self.case.plan(expect=0)).document
        return [(step["action"], step["reason"]) for step in document["steps"]]

    def opened(self, place: str = REPO) -> dict[str, str]:
        return self.double.opened(place)


VALUES = {"API_KEY": "api-1", "REDIS_URL": "redis-1", "DB_USER": "user-1", "DB_PASSWORD": "password-1"}
PUSHED = {
    "API_KEY": canary("api-1"),
    "CACHE_URL": canary("redis-1"),
    "DB_PASSWORD": canary("password-1"),
    "DB_USER": canary("user-1"),
}


@asynccontextmanager
async def pushing(root: Path) -> AsyncIterator[Pushing]:
    async with make_case(root) as case:
        with GitHubDouble() as double:
            double.add(REPO)
            case.world.environment |= {"GITHUB_API_URL": double.url, "GH_PAT": double.token}
            made = Pushing(case, double)
            made.fill(**VALUES)
            made.commit()
            yield made


async def test_names_are_written_once_and_then_left_alone(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        assert await it.plan() == [("push", "not applied yet")]
        await it.reconcile()
        assert it.opened() == PUSHED
        # The members of a group follow each other.
        assert it.double.writes() == ["DB_PASSWORD", "DB_USER", "API_KEY", "CACHE_URL"]
        assert it.case.ready(TARGET)[:2] == ("True", "ReconciliationSucceeded")
        assert sorted(it.case.status(TARGET)["owned"]) == sorted(PUSHED)
        again = await it.reconcile()
        assert (again["steps"], again["statusCommit"]) == ([], None)
        assert len(it.double.writes()) == 4


async def test_a_changed_value_is_written_alone_and_the_plan_names_it(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        await it.reconcile()
        it.fill(**{**VALUES, "REDIS_URL": "redis-2"})
        assert await it.plan() == [("push", "changed: secret CACHE_URL")]
        await it.reconcile()
        assert it.double.writes()[4:] == ["CACHE_URL"]
        assert it.opened() == {**PUSHED, "CACHE_URL": canary("redis-2")}
        assert await it.plan() == []


async def test_what_somebody_else_deleted_or_wrote_is_written_again(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        await it.reconcile()
        del it.double.places[REPO]["CACHE_URL"]
        it.double.store(REPO, API_KEY=canary("of-somebody-else"))
        assert await it.plan() == [("push", "drift: CACHE_URL gone, API_KEY changed by somebody else")]
        await it.reconcile()
        assert sorted(it.double.writes()[4:]) == ["API_KEY", "CACHE_URL"]
        assert it.opened() == PUSHED
        assert await it.plan() == []


async def test_a_kill_between_two_writes_of_a_group_is_completed_by_the_next_pass(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        it.fill(**{**VALUES, "DB_USER": "user-0", "DB_PASSWORD": "password-0"})
        await it.reconcile()
        it.fill(**VALUES)
        it.double.fail_with(Fault(hold=True), on="put", name="DB_USER")
        await it.case.world.kill_during(it.double.holding.wait, "reconcile")
        half = it.opened()
        assert (half["DB_PASSWORD"], half["DB_USER"]) == (canary("password-1"), canary("user-0"))
        it.double.release()
        assert await it.plan() == [("push", "a step was interrupted")]
        await it.reconcile()
        assert it.opened() == PUSHED
        assert it.case.ready(TARGET)[0] == "True"
        assert await it.plan() == []


SERVICE = """\
services:
  api:
    repository: app
    depends_on: [target/billing]
    deploy: {kind: invoke, task: deploy}
    environments: [staging]
"""


async def test_a_group_that_was_begun_is_incomplete_and_what_depends_on_it_waits(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        it.commit(services=SERVICE)
        it.double.fail_with(Fault(500), on="put", name="DB_USER")
        document = await it.reconcile(expect=4)
        assert document["outcomes"][TARGET]["reason"] == "GroupIncomplete"
        status, reason, message = it.case.ready(TARGET)
        assert (status, reason) == ("False", "GroupIncomplete")
        assert "DB_PASSWORD in place and DB_USER not" in message
        assert it.case.deployed() == {}
        # What was written counts: only the rest is due.
        assert [step for step in await it.plan() if step[0] == "push"] == [
            ("push", "changed: names, secret API_KEY, secret CACHE_URL, secret DB_USER")
        ]
        await it.reconcile()
        assert it.double.writes() == ["DB_PASSWORD", "DB_USER", "DB_USER", "API_KEY", "CACHE_URL"]
        assert it.opened() == PUSHED
        assert it.case.deployed() == {"api": ["v1.0.0"]}


async def test_names_that_are_not_wanted_any_more(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        owned = TARGETS + "    prune: owned\n"
        it.commit(owned)
        it.double.store(REPO, NOT_OURS=canary("not-ours"))
        await it.reconcile()
        it.commit(owned.replace("API_KEY, ", ""))
        assert await it.plan() == [
            ("push", "changed: names, secret API_KEY; API_KEY no longer listed, to be deleted")
        ]
        await it.reconcile()
        assert sorted(it.opened()) == ["CACHE_URL", "DB_PASSWORD", "DB_USER", "NOT_OURS"]
        assert await it.plan() == []
        # Written by somebody else since, it is theirs; and `never` deletes nothing.
        it.double.store(REPO, CACHE_URL=canary("theirs-now"))
        it.commit(owned.replace(", {key: REDIS_URL, name: CACHE_URL}", ""))
        await it.reconcile()
        assert it.opened()["CACHE_URL"] == canary("theirs-now")
        assert "CACHE_URL" not in it.case.status(TARGET)["owned"]
        assert await it.plan() == []


async def test_what_was_left_is_deleted_once_that_is_asked_for(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        await it.reconcile()
        it.commit(TARGETS.replace("API_KEY, ", ""))
        await it.reconcile()
        assert (await it.plan(), "API_KEY" in it.opened()) == ([], True)
        it.commit(TARGETS.replace("API_KEY, ", "") + "    prune: owned\n")
        assert await it.plan() == [("push", "drift: API_KEY no longer listed, to be deleted")]
        await it.reconcile()
        assert (await it.plan(), "API_KEY" in it.opened()) == ([], False)


async def test_more_than_half_is_not_deleted_at_once(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        owned = TARGETS + "    prune: owned\n"
        it.commit(owned)
        await it.reconcile()
        kept = [line for line in owned.splitlines() if "groups" not in line]
        it.commit("\n".join(kept).replace("API_KEY, ", "") + "\n")
        document = await it.reconcile(expect=4)
        assert document["outcomes"][TARGET]["reason"] == "PruneRefused"
        assert it.opened() == PUSHED


async def test_the_spec_forgets_a_target_and_the_secrets_stay(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        await it.reconcile()
        it.commit("")
        assert await it.plan() == [("forget", "no longer in the spec; the secrets stay there")]
        await it.reconcile()
        assert it.opened() == PUSHED


@pytest.mark.parametrize(
    ("place", "where"),
    [
        (f"{REPO}#production", "repo: acme/billing\n    environment: production"),
        ("acme", "org: acme\n    visibility: selected\n    selected_repositories: [billing]"),
    ],
)
async def test_environments_and_organisations(tmp_path: Path, place: str, where: str) -> None:
    async with pushing(tmp_path) as it:
        it.double.add(place)
        it.commit(TARGETS.replace("repo: acme/billing", where))
        await it.reconcile()
        assert it.opened(place) == PUSHED
        assert it.opened() == {}
        if place == "acme":
            stored = it.double.places["acme"]["API_KEY"]
            assert (stored.visibility, stored.repositories) == ("selected", (it.double.ids[REPO],))


async def test_what_stops_a_push_is_told_and_nothing_is_taken_for_absent(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        it.commit(TARGETS.replace("acme/billing", "acme/biling"))
        ran = await it.case.reconcile(expect=4)
        assert error(ran) == (
            f"error: {TARGET}: GitHubRefused: acme/biling: not there, or the token has no right to see it "
            "(http 404); check the names, and the token's rights"
        )
        it.commit()
        without = await it.case.reconcile(expect=4, GH_PAT="")
        assert "No auth token (GH_PAT or GITHUB_TOKEN) available for acme/billing" in error(without)
        await it.reconcile()
        it.double.fail_with(slow_down(3000), on="list")
        down = await it.case.reconcile(expect=4)
        assert f"{TARGET}: GitHubUnavailable" in error(down)
        assert it.case.ready(TARGET)[:2] == ("Unknown", "GitHubUnavailable")
        assert len(it.double.writes()) == 4
        it.fill(**{name: value for name, value in VALUES.items() if name != "DB_USER"})
        missing = await it.case.reconcile(expect=4)
        assert f"{TARGET}: SecretNotFound: secret source local has no key DB_USER" in error(missing)
        assert it.opened() == PUSHED


async def test_a_fallback_alone_is_not_pushed(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        it.add_fallback(tmp_path / "other.env")
        await it.reconcile()
        it.case.env_file.unlink()
        document = await it.reconcile()
        assert document["steps"] == []
        assert it.opened() == PUSHED


async def test_nothing_old_is_written_over_what_the_source_gave(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        it.add_fallback(tmp_path / "other.env")
        await it.reconcile()
        kept = it.case.env_file.read_text()
        it.case.env_file.unlink()
        # Somebody deletes half of a group while a fallback serves: what to put there is not known.
        del it.double.places[REPO]["DB_USER"]
        ran = await it.case.reconcile(expect=4)
        assert f"{TARGET}: StaleSecrets: DB_USER is not as it was written" in error(ran)
        assert it.opened() == {name: value for name, value in PUSHED.items() if name != "DB_USER"}
        may_hold(it.case.env_file).write_text(kept)
        assert await it.plan() == [("push", "drift: DB_USER gone")]
        await it.reconcile()
        assert it.opened() == PUSHED


async def test_a_delete_that_is_refused_loses_nothing_of_what_was_written(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        owned = TARGETS + "    prune: owned\n"
        it.commit(owned)
        await it.reconcile()
        it.fill(**{**VALUES, "REDIS_URL": "redis-2"})
        it.commit(owned.replace("API_KEY, ", ""))
        it.double.fail_with(Fault(403), on="delete")
        document = await it.reconcile(expect=4)
        assert document["outcomes"][TARGET]["reason"] == "GitHubRefused"
        assert it.double.writes()[4:] == ["CACHE_URL", "API_KEY"]
        await it.reconcile()
        assert it.double.writes()[6:] == ["API_KEY"]
        assert (await it.plan(), "API_KEY" in it.opened()) == ([], False)


TWO = """\
secret_targets:
  first: {{kind: github_actions, repo: acme/billing, from: local, prune: owned, keys: [{first}]}}
  second: {{kind: github_actions, repo: Acme/Billing, from: local, prune: owned, keys: [{second}]}}
"""


async def test_a_name_that_moves_to_another_target_of_the_same_place_stays(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        it.double.add("Acme/Billing")
        it.double.places["Acme/Billing"] = it.double.places[REPO]
        it.commit(TWO.format(first="API_KEY, DB_USER", second="REDIS_URL"))
        await it.reconcile()
        it.commit(TWO.format(first="DB_USER", second="API_KEY, REDIS_URL"))
        await it.reconcile()
        assert sorted(it.opened()) == ["API_KEY", "DB_USER", "REDIS_URL"]
        assert await it.plan() == []
        it.commit(TWO.format(first="API_KEY, DB_USER", second="API_KEY, REDIS_URL"))
        ran = await it.case.reconcile(expect=3)
        assert "`API_KEY` is written there by `first` too" in error_lines(ran)[0]


async def test_a_renamed_target_keeps_what_is_its_own(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        await it.reconcile()
        moved = TARGETS.replace("  billing:", "  invoices:")
        it.commit(moved + "moved: [{from: secret_targets/billing, to: secret_targets/invoices}]\n")
        await it.reconcile()
        assert sorted(it.case.status("targets/invoices")["owned"]) == sorted(PUSHED)
        assert await it.plan() == []


async def test_a_token_that_a_bound_source_holds(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        tokens = may_hold(tmp_path / "tokens.env")
        tokens.write_text(f"GH={it.double.token}\n")
        tokens.chmod(0o600)
        it.case.head += f'  tokens: {{kind: env_file, environments: [staging], file: "{tokens}"}}\n'
        it.commit(TARGETS + "    token: {secret: tokens/GH}\n")
        it.case.world.environment["GH_PAT"] = ""
        await it.reconcile()
        assert it.opened() == PUSHED


async def test_the_plan_names_what_a_first_push_overwrites(tmp_path: Path) -> None:
    async with pushing(tmp_path) as it:
        it.double.store(REPO, API_KEY=canary("of-somebody-else"))
        assert await it.plan() == [("push", "not applied yet; overwrites API_KEY, which somebody else wrote")]
