"""`spec_from: release`: what a merge changes at once in production, and what waits for the promotion."""

from pathlib import Path

from agent.node_token import NodeToken
from tests.canaries import canary, may_hold
from tests.releasing import Life, begin_life

SHOW = """
@task
def show(c):
    with (Path({deployed!r}) / "shown").open("a") as log:
        log.write(os.environ["TRUEUP_ENVIRONMENT"] + " " + str(len(os.environ["PASSWORD"])) + "\\n")
"""

MORE = """\
  show:
    repository: app
    paths: ["show/**", tasks.py]
    secrets: [{{source: local, keys: [PASSWORD]}}]
    deploy: {{kind: invoke, task: show}}
    environments: [staging, production]
projects:
  site:
    repository: app
    environment: production
    path: web
    sync: {{nodes: [{{labels: {{group: web}}, target_path: {target}}}]}}
secret_sources:
  local: {{kind: env_file, file: "{env_file}"}}
nodes:
  web-1: {{token_key: "{token}", labels: {{group: {group}}}}}
"""


def write_secret(path: Path, value: str) -> Path:
    may_hold(path).write_text(f"PASSWORD={value}\n")
    path.chmod(0o600)
    return path


def shown(life: Life, environment: str) -> list[str]:
    """How long the secret was in each deploy."""
    lines = (life.world.deployed / "shown").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[0] == environment]


async def test_sources_and_labels_act_at_once_and_services_and_projects_when_promoted(tmp_path: Path) -> None:
    first, second = canary("first"), canary("second") + canary("longer")
    env_files = [write_secret(tmp_path / "one.env", first), write_secret(tmp_path / "two.env", second)]
    token = NodeToken.generate().public_text

    async with begin_life(tmp_path) as life:
        world = life.world

        def merge(*, env_file: int, group: str, target: str) -> None:
            life.more = MORE.format(env_file=env_files[env_file], group=group, target=target, token=token)
            life.merge_spec()

        async def targets() -> set[str]:
            """What the plan says of targets of the project."""
            plan = (await world.trueup("plan", "-o", "json", expect=None)).document
            told = [each["resource"] for part in ("steps", "findings") for each in plan[part]]
            return {resource for resource in told if resource.startswith("projects/")}

        tasks = world.app.read("tasks.py").decode() + SHOW.format(deployed=str(world.deployed))
        world.app.commit({"tasks.py": tasks, "show/x": "1"})
        merge(env_file=0, group="db", target="/srv/old")
        await world.reconcile()
        await life.promote()
        await world.reconcile()
        assert shown(life, "production") == [str(len(first))]
        assert life.deploys("production") == ["v0.2.0 0 one"]
        assert await targets() == set()  # no node has the label

        # The services and projects of the merge wait; the source's file and the node's label do not.
        life.level = "two"
        merge(env_file=1, group="web", target="/srv/new")
        await world.reconcile("--wait-agents", "0s", expect=4)
        assert shown(life, "production") == [str(len(first)), str(len(second))]
        assert life.deploys("production") == ["v0.2.0 0 one"]
        assert life.deploys("staging") == ["v0.1.0 0 one", "v0.1.0 0 two"]
        assert await targets() == {"projects/production/site/web-1/srv+old"}
        assert life.runs("production")[0] == "v0.2.0"

        # The promotion brings them, though not one file of the code is another.
        commit = life.runs("production")[1]
        await life.promote()
        await world.reconcile("--wait-agents", "0s", expect=4)
        assert life.runs("production")[:3] == ("v0.3.0", commit, "promotion")
        assert life.deploys("production") == ["v0.2.0 0 one", "v0.3.0 0 two"]
        assert await targets() == {"projects/production/site/web-1/srv+new"}


async def test_settings_that_fail_in_staging_do_not_get_to_production(tmp_path: Path) -> None:
    async with begin_life(tmp_path) as life:
        world = life.world
        tasks = world.app.read("tasks.py").decode()
        failing = tasks + "    if os.environ['LEVEL'] == 'wrong':\n        raise SystemExit(7)\n"
        world.app.commit({"tasks.py": failing})
        await world.reconcile()
        await life.promote()
        await world.reconcile()

        life.level = "wrong"
        life.merge_spec()
        await world.reconcile(expect=4)
        assert life.runs("staging")[3] == "succeeded"  # the release is not at fault, its settings are
        asked = await world.trueup("promote", "staging", "production", "--confirm", "deploy", expect=1)
        assert "is not in order in staging with the spec as it is now" in asked.stderr
        assert "services/staging/web: DeployFailed" in asked.stderr

        life.level = "right"
        life.merge_spec()
        await world.reconcile()
        await life.promote()
        await world.reconcile()
        assert life.deploys("production") == ["v0.2.0 0 one", "v0.3.0 0 right"]
