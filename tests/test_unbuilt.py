"""Parts of the spec that are valid and not acted on yet: each is reported as such, and never as a success."""

from pathlib import Path

from agent.node_token import NodeToken
from tests.bad_world import Case, errors, make_case

NOT_YET = "is valid, but this version of trueup does not act on it yet"

PROJECTS = {
    "sync.strategy: release": "repository: app, branch: main, sync: {strategy: release, nodes: [NODE]}",
}


def name_of(table: dict[str, str], part: str) -> str:
    return f"part-{list(table).index(part)}"


def spec(case: Case) -> str:
    """One of everything in the table, and one service that is fine."""
    invoke = "deploy: {kind: invoke, task: deploy}"
    projects = {name_of(PROJECTS, part): text for part, text in PROJECTS.items()}
    projects |= {"site": "repository: app, branch: main, suspend: true, sync: {nodes: [NODE]}"}
    lines = [
        case.head.rstrip(),
        "services:",
        f"  fine: {{repository: app, environments: [staging], {invoke}}}",
        "nodes:",
        f'  web-1: {{token_key: "{NodeToken.generate().public_text}"}}',
        "projects:",
        *(
            f"  {name}: {{{text.replace('NODE', f'{{node_id: web-1, target_path: /srv/{name}}}')}}}"
            for name, text in projects.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def expected() -> dict[str, str]:
    """By resource: the part that is to be named."""
    found: dict[str, str] = {}
    for part in PROJECTS:
        name = name_of(PROJECTS, part)
        found[f"projects/branch/{name}/web-1/srv+{name}"] = f"projects.{name}.{part}"
    return found


async def test_parts_that_are_not_built_are_no_success(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(spec(case))
        ran = await case.reconcile("--wait-agents", "0s", expect=4)
        assert set(ran.document["outcomes"]) == {"services/staging/fine"}
        assert case.deployed() == {"fine": ["v1.0.0"]}
        for resource, part in expected().items():
            assert case.ready(resource) == ("False", "NotImplemented", f"{part} {NOT_YET}")
        said = {line.split(": ")[1]: line for line in errors(ran)}
        assert said == {
            resource: f"error: {resource}: NotImplemented: {part} {NOT_YET}"
            for resource, part in expected().items()
        }
        assert case.ready("summary")[0] == "False"
        # Again: the same, and nothing new to record.
        again = await case.reconcile("--wait-agents", "0s", expect=4)
        assert again.document["statusCommit"] is None
        planned = await case.plan("--detailed-exitcode", expect=1)
        assert {finding["resource"] for finding in planned.document["findings"]} >= set(expected())


async def test_a_manual_service_is_reported_and_never_applied(tmp_path: Path) -> None:
    """It is built: doing nothing is what it is for."""
    async with make_case(tmp_path) as case:
        case.commit(case.good.replace("{kind: invoke, task: deploy}", "{kind: manual}", 1))
        await case.reconcile(expect=0)
        assert case.deployed() == {"api": ["v1.0.0"]}
        assert case.ready("services/staging/database")[:2] == ("False", "Manual")
