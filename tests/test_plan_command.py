"""What `trueup plan` and `-o json` promise to scripts: exit codes, and one document on standard output."""

import json
from pathlib import Path

import yaml

from agent.node_token import NodeToken
from tests.bad_world import API, BOTH, DATABASE, checked, error, errors, make_case


async def test_the_exit_codes_of_a_plan(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good)
        # Changes: 2 if asked for, and nothing is changed by looking.
        assert len((await case.plan("--detailed-exitcode", expect=2)).document["steps"]) == 2
        assert len((await case.plan(expect=0)).document["steps"]) == 2
        assert case.deployed() == {}
        assert case.world.status_commits() == []
        # Nothing to do.
        await case.reconcile(expect=0)
        clean = await case.plan("--detailed-exitcode", expect=0)
        assert (clean.document["steps"], clean.document["findings"]) == ([], [])
        assert errors(clean) == []
        table = checked(await case.world.trueup("plan", "--detailed-exitcode"))
        assert table.stdout == "nothing to do\n"
        # Unknown: never 0 and never 2, whatever else there is to do.
        case.release("v1.1.0")
        case.commit(
            case.good.replace("  app: {", '  away: {url: "/nowhere.git"}\n  app: {').replace(
                ": app", ": away", 1
            )
        )
        unknown = await case.plan("--detailed-exitcode", expect=1)
        assert [step["resource"] for step in unknown.document["steps"]] == [API]
        assert [finding["unknown"] for finding in unknown.document["findings"]] == [True]
        assert error(unknown).startswith(f"error: {DATABASE}: RepositoryUnavailable: /nowhere.git: ")
        await case.plan(expect=1)
        assert case.deployed() == BOTH


async def test_a_plan_of_hosts_that_were_never_asked(tmp_path: Path) -> None:
    """A plan asks no agent: what was recorded of hosts is taken for what is there, so it is no unknown."""
    async with make_case(tmp_path) as case:
        node = f'nodes:\n  web-1: {{token_key: "{NodeToken.generate().public_text}"}}\n'
        sync = "{nodes: [{node_id: web-1, target_path: /srv/site}]}"
        project = f"{{repository: app, branch: main, path: site, sync: {sync}}}"
        case.commit(f"{case.head}{node}projects:\n  site: {project}\n")
        ran = await case.plan("--detailed-exitcode", expect=2)
        assert [step["action"] for step in ran.document["steps"]] == ["sync"]


async def test_standard_output_holds_the_document_and_nothing_else(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good)
        for arguments in (["plan"], ["reconcile"], ["get"]):
            as_json = await case.world.trueup(*arguments, "-o", "json", "-vv", "--log-format", "json")
            as_yaml = await case.world.trueup(*arguments, "-o", "yaml", "-v")
            assert yaml.safe_load(as_yaml.stdout).__class__ is json.loads(as_json.stdout).__class__
            # The log: one document a line, all of it on standard error.
            for line in as_json.stderr.splitlines():
                assert isinstance(json.loads(line), dict)
        assert "Fetching fresh secrets" in (await case.plan(expect=0)).stderr


async def test_the_document_says_what_the_table_says(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good.replace("DB_PASSWORD", "DB_PASSWRD"))
        table = checked(await case.world.trueup("plan", expect=1))
        document = (await case.plan(expect=1)).document
        assert document["version"] == 1
        assert document["specRevision"] == f"main@sha1:{case.world.spec.resolve('main')}"
        for step in document["steps"]:
            assert any(
                line.split() == [step["action"], step["resource"], *step["reason"].split()]
                for line in table.stdout.splitlines()
            )
        for finding in document["findings"]:
            assert finding["resource"] in table.stdout
            assert finding["message"] in table.stdout
