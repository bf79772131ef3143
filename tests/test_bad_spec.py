"""A spec that is wrong, by the real command line: said in one line each, and nothing of it half-applied."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_world import API, BOTH, DATABASE, SERVICES, checked, error, errors, make_case
from tests.world import Ran

LAST_GOOD = "the last good spec stays active: main@sha1:"
OTHERS_GO_ON = "what these concern stays as it was; everything else goes on"


def missing_environment(text: str) -> str:
    return text.replace("environments: [staging]", "environments: [stagin]", 1)


def circle(text: str) -> str:
    first = text.replace("  database:\n", "  database:\n    depends_on: [api]\n")
    return first.replace("  api:\n", "  api:\n    depends_on: [database]\n")


Fault = tuple[Callable[[str], str], str]

WHOLE: dict[str, Fault] = {
    "bad YAML": (lambda text: text + "  worker: [a: b\n", "trueup.yaml:22:1: not valid YAML: "),
    "an unknown section": (
        lambda text: text + "servces: {}\n",
        "trueup.yaml:21:1: servces: unknown key `servces`; did you mean `services`?",
    ),
    "another version": (
        lambda text: text.replace("version: 1", "version: 2"),
        "trueup.yaml:1:10: version: is `2`, and must be 1",
    ),
    "nothing at all": (lambda text: "", "trueup.yaml:1:1: the file is empty; begin with `version: 1`"),
    "no text": (lambda text: "version: \x00\n", "trueup.yaml:1:10: "),
}
"""Faults for which no part of the spec can be trusted."""

OF_ONE: dict[str, Fault] = {
    "an unknown key": (
        lambda text: text.replace("    secrets:", "    secret:"),
        "trueup.yaml:13:5: services.database.secret: unknown key `secret`; did you mean `secrets`?",
    ),
    "a wrong type": (
        lambda text: text.replace('["database/**"]', "7"),
        "trueup.yaml:12:12: services.database.paths: is a whole number, and must be a list",
    ),
    "an unknown reference": (
        lambda text: text.replace("source: local", "source: loco"),
        "trueup.yaml:13:15: services.database.secrets[0]: there is no secret source `loco`; "
        "did you mean `local`?",
    ),
    "an unknown environment": (
        missing_environment,
        "trueup.yaml:15:20: services.database.environments[0]: there is no environment `stagin`; "
        "did you mean `staging`?",
    ),
}
"""Faults of the service `database` alone."""


@pytest.mark.parametrize("fault", WHOLE)
async def test_a_spec_that_is_wrong_as_a_whole(tmp_path: Path, fault: str) -> None:
    spoil, expected = WHOLE[fault]
    async with make_case(tmp_path) as case:
        spoiled = spoil(case.good)
        case.commit(spoiled)
        # With nothing before it: nothing happens at all.
        first = await case.reconcile(expect=3)
        assert error(first).startswith(f"error: {expected}")
        assert first.stdout == ""
        assert case.deployed() == {}
        assert case.world.status_commits() == []
        # After a good one: that stays active.
        await case.deploy_all()
        good = case.world.spec.resolve("main")
        case.release("v1.1.0")
        bad = case.commit(spoiled)
        second = await case.reconcile(expect=3)
        assert error_and_note(second, LAST_GOOD + str(good)).startswith(f"error: {expected}")
        assert {step["resource"] for step in second.document["steps"]} == {API, DATABASE}
        assert case.deployed() == {"api": ["v1.0.0", "v1.1.0"], "database": ["v1.0.0", "v1.1.0"]}
        summary = case.status("summary")
        assert (summary["lastAttemptedRevision"], summary["lastAppliedRevision"]) == (bad, good)
        assert summary["problems"][0].startswith(expected)
        assert case.ready("summary")[:2] == ("False", "SpecInvalid")
        assert case.ready(DATABASE)[:2] == ("True", "ReconciliationSucceeded")
        # Looking at it says the same, and the next pass has nothing to add.
        assert errors(await case.plan(expect=3)) == errors(second)
        commits = case.world.status_commits()
        again = await case.reconcile(expect=3)
        assert (again.document["steps"], again.document["statusCommit"]) == ([], None)
        assert case.world.status_commits() == commits


def error_and_note(ran: Ran, note: str) -> str:
    """The one error of a pass; the note that follows it is as given."""
    [problem, said] = errors(ran)
    assert said == note
    return problem


@pytest.mark.parametrize("fault", OF_ONE)
async def test_one_broken_service_among_good_ones(tmp_path: Path, fault: str) -> None:
    spoil, expected = OF_ONE[fault]
    async with make_case(tmp_path) as case:
        case.commit(spoil(case.good))
        # With nothing before it: the other one is deployed.
        first = await case.reconcile(expect=3)
        assert error_and_note(first, OTHERS_GO_ON) == f"error: {expected}"
        assert first.document["problems"] == [expected]
        assert case.deployed() == {"api": ["v1.0.0"]}
        # After a good one: it is frozen, the other one acts.
        case.commit(case.good)
        await case.reconcile(expect=0)
        case.release("v1.1.0")
        case.commit(spoil(case.good))
        await case.reconcile(expect=3)
        assert case.deployed() == {"api": ["v1.0.0", "v1.1.0"], "database": ["v1.0.0"]}
        assert case.status("summary")["problems"] == [expected]
        assert case.ready(DATABASE)[:2] == ("False", "SpecInvalid")
        assert case.status(DATABASE)["lastAppliedRevision"].startswith("v1.0.0@")
        assert case.ready(API)[0] == "True"
        # Mended: it catches up, and nothing of the fault is left.
        case.commit(case.good)
        await case.reconcile(expect=0)
        assert case.deployed() == {"api": ["v1.0.0", "v1.1.0"], "database": ["v1.0.0", "v1.1.0"]}
        assert [each["type"] for each in case.status(DATABASE)["conditions"]] == ["Ready"]
        assert "problems" not in case.status("summary")
        assert case.ready("summary")[0] == "True"


async def test_dependencies_in_a_circle(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(circle(case.good))
        ran = await case.reconcile(expect=3)
        assert error_and_note(ran, OTHERS_GO_ON) == (
            "error: trueup.yaml:18:5: services.api.depends_on: the dependencies go in a circle in staging: "
            "api -> database -> api; remove one of them"
        )
        assert ran.document["steps"] == []
        assert case.deployed() == {}


async def test_no_spec_and_no_branch(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        empty = await case.reconcile(expect=1)
        url = case.world.spec.url
        assert (
            error(empty) == f"error: {url} has no branch 'main'; push it, or name another one with --branch"
        )
        case.world.spec.commit({"README.md": "nothing here\n"})
        missing = await case.reconcile(expect=3)
        assert error(missing) == (
            "error: trueup.yaml:1:1: the repository has no trueup.yaml; "
            "run `trueup init` to write a first one"
        )
        assert error(await case.plan(expect=3)) == error(missing)
        other = await case.reconcile("--branch", "nxt", expect=1)
        assert "has no branch 'nxt'" in error(other)
        assert case.deployed() == {}
        assert case.world.status_commits() == []
        # A file that is deleted is a mistake until proven otherwise: what it said last holds.
        await case.deploy_all()
        case.world.spec.commit({"trueup.yaml": None})
        deleted = await case.reconcile(expect=3)
        assert errors(deleted)[0] == error(missing)
        assert deleted.document["steps"] == []


async def test_all_errors_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        text = case.head.replace("version: 1\n", "version: 1\ninclude: [services/*.yaml]\n")
        case.world.commit_spec(
            text.replace("kind: env_file", "kind: env_fil"),
            {
                "services/api.yaml": SERVICES.replace("repository: app", "repository: ap", 1),
                "services/more.yaml": "services:\n  web: {repository: app, deploy: {kind: magic}}\n",
            },
        )
        ran = await case.reconcile(expect=3)
        places = [line.removeprefix("error: ").split(": ")[:2] for line in errors(ran)[:-1]]
        assert places == [
            ["services/api.yaml:3:17", "services.database.repository"],
            ["services/more.yaml:2:3", "services.web"],
            ["services/more.yaml:2:41", "services.web.deploy.kind"],
            ["trueup.yaml:9:17", "secret_sources.local.kind"],
        ]
        # The same from the files on disk, for editors and hooks.
        directory = case.world.root / "work"
        for path, content in case.world.spec.files().items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)
        validated = checked(await case.world.trueup("validate", str(directory), expect=3))
        assert errors(validated) == errors(ran)[:-1]
        told = checked(await case.world.trueup("validate", str(directory), "-o", "json", expect=3))
        assert errors(told) == [f"error: {problem}" for problem in told.document["problems"]]
        assert (errors(told), told.document["valid"]) == (errors(validated), False)
        nowhere = checked(await case.world.trueup("validate", str(directory / "nowhere.yaml"), expect=3))
        assert error(nowhere) == (
            f"error: {directory}/nowhere.yaml:1:1: there is no such file; name the spec's file or its "
            "directory, or run `trueup init` to write a first one"
        )


async def test_an_error_on_top_of_an_error_forgets_nothing(tmp_path: Path) -> None:
    """The last good commit may itself have left a service out: that one must not be taken for removed."""
    async with make_case(tmp_path) as case:
        await case.deploy_all()
        case.commit(OF_ONE["an unknown key"][0](case.good))
        await case.reconcile(expect=3)
        case.commit("version: 2\n")
        ran = await case.reconcile(expect=3)
        assert ran.document["steps"] == []
        case.commit(case.good)
        after = await case.reconcile(expect=0)
        assert after.document["steps"] == []
        assert case.deployed() == BOTH


async def test_an_emptied_spec_prunes_nothing_unless_told_so(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        await case.deploy_all()
        before = set(case.world.status())
        case.commit("version: 1\n")
        refused = await case.reconcile(expect=4)
        assert refused.document["steps"] == []
        assert error(refused) == (
            "error: summary: PruneRefused: the spec no longer names 4 of 4 recorded resources, more than "
            "limits.max_prune allows; make one pass with --force-prune, raise it for this change, or restore "
            "what was removed by mistake"
        )
        assert set(case.world.status()) == before
        assert case.ready("summary")[:2] == ("False", "PruneRefused")
        assert error(await case.plan("--detailed-exitcode", expect=1)) == error(refused)
        case.commit(case.good)
        assert (await case.reconcile(expect=0)).document["steps"] == []
        case.commit("version: 1\nlimits: {max_prune: 100%}\n")
        meant = await case.reconcile(expect=0)
        assert {step["action"] for step in meant.document["steps"]} == {"forget"}
        assert set(case.world.status()) == {"summary.yaml"}
        assert case.deployed() == BOTH


async def test_a_resource_that_is_not_there_cannot_be_forced(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        await case.deploy_all()
        ran = await case.reconcile("--force", "services/staging/databse", expect=1)
        assert error(ran) == (
            "error: --force services/staging/databse: "
            "the spec has no such service, project target or secret target; "
            f"did you mean {DATABASE}?"
        )
        assert case.deployed() == BOTH
        await case.reconcile("--force", DATABASE, expect=0)
        assert case.deployed() == {"api": ["v1.0.0"], "database": ["v1.0.0", "v1.0.0"]}


UNUSABLE = {
    "bad YAML": "nodes: [a: b\n",
    "nodes of another type": "version: 1\nnodes: [web]\n",
    "no map": "- version\n",
    "binary": "version: 1\nnodes: {}\n# \x07\n",
}


@pytest.mark.parametrize("fault", UNUSABLE)
async def test_a_node_is_not_added_to_a_broken_spec(tmp_path: Path, fault: str) -> None:
    async with make_case(tmp_path) as case:
        head = case.commit(UNUSABLE[fault])
        ran = checked(
            await case.world.trueup("node", "add", "web-1", "--primary", "127.0.0.1:9001", expect=3)
        )
        assert error(ran).startswith("error: trueup.yaml:")
        assert ran.stdout == ""
        assert case.world.spec.resolve("main") == head
