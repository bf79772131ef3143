"""One commit's way: from git to hosts and back into git, everything real."""

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from jsonschema import Draft202012Validator

from reconciler.journal import Journal
from schema import read_schema
from tests.canaries import canary, may_hold
from tests.contracts.infisical_double import InfisicalDouble, server_error
from tests.gitrepo import Executable, Link, git
from tests.processlist import ProcessList
from tests.specs import STAGING
from tests.vault import vault, vault_environment
from tests.world import Host, Relay, World, make_world, tree_of

SPEC = (
    STAGING
    + """\
secret_sources:
{vault}
  local: {{kind: env_file, file: "{env_file}"}}
services:
  database:
    repository: app
    paths: ["database/**", tasks.py]
    secrets: [{{source: vault, keys: [DB_PASSWORD]}}]
    env: {{LOG_LEVEL: info}}
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
  api:
    repository: app
    paths: ["api/**"]
    deploy: {{kind: invoke, task: deploy}}
    depends_on: [database]
    environments: [staging]
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      max_parallel_nodes: 2
      nodes:
        - {{labels: {{group: web}}, target_path: "{target}"}}
      files:
        - {{path: .env, format: dotenv, mode: "0600", secrets: [vault]}}
      after: [mark]
nodes: {{}}
"""
)

TASKS = """\
import os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    name = os.environ["TRUEUP_SERVICE"]
    print("the password is", os.environ.get("DB_PASSWORD", "none"))
    with (Path({deployed!r}) / name).open("a") as log:
        log.write(os.environ["TRUEUP_TAG"] + " " + os.environ.get("LOG_LEVEL", "-") + "\\n")
"""

BLOCK = 128 * 1024
PIECE = 4 * 1024
BIG = random.Random(7).randbytes(3 * 1024 * 1024)


def fill(world: World, double: InfisicalDouble) -> None:
    """A first release of the application, secrets, and the spec that uses both."""
    double.secrets[double.project, "staging", "/"] = {
        "DB_PASSWORD": canary("db-password"),
        "API_KEY": canary("api-key"),
    }
    env_file = may_hold(world.root / "local.env")
    env_file.write_text(f"DB_PASSWORD={canary('fallback')}\nAPI_KEY=x\n")
    env_file.chmod(0o600)
    world.environment |= vault_environment(double)
    world.app.commit(
        {
            "tasks.py": TASKS.format(deployed=str(world.deployed)),
            "database/compose.yaml": "one\n",
            "api/compose.yaml": "one\n",
            "site/index.html": "<h1>hello</h1>\n",
            "site/big.bin": BIG,
            "site/bin/run": Executable("#!/bin/sh\n"),
            "site/current": Link("index.html"),
            "site/old/page.html": "old\n",
        }
    )
    world.app.tag("v1.0.0")
    world.commit_spec(
        SPEC.format(
            app=world.app.url,
            vault=vault(double, fallback="[local]"),
            env_file=env_file,
            target=world.root / "TARGET",
        )
    )


async def prepare_hosts(world: World, relay: Relay) -> list[Host]:
    hosts = []
    for node in ("web-1", "web-2"):
        host = await world.add_host(node, relay.address, "group=web")
        host.extra += ["--allow", f"mark=touch {host.root / 'marked'}"]
        hosts.append(host)
    # Each host has a root of its own here, so the one target path of the label becomes two entries.
    text = world.spec.read("trueup.yaml").decode()
    entry = next(line for line in text.splitlines() if "group: web}, target_path" in line)
    indent = entry[: len(entry) - len(entry.lstrip())]
    entries = "\n".join(
        f'{indent}- {{node_id: {host.node}, target_path: "{host.srv}/site"}}' for host in hosts
    )
    world.commit_spec(text.replace(entry, entries))
    return hosts


def source_tree(world: World, directory: Path) -> Path:
    git("clone", "-q", world.app.url, str(directory))
    return directory / "site"


def rsync_differences(source: Path, target: Path) -> list[str]:
    """What rsync would change to make the target like the source: its own judgement, not ours."""
    done = subprocess.run(
        ["rsync", "-rlpnci", "--delete", f"{source}/", f"{target}/"],
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.splitlines()


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as double:
        yield double


def deployed(world: World) -> dict[str, list[str]]:
    return {path.name: path.read_text().splitlines() for path in sorted(world.deployed.iterdir())}


async def test_from_a_commit_to_two_hosts_and_back(
    tmp_path: Path, double: InfisicalDouble, process_list: ProcessList
) -> None:
    async with make_world(tmp_path) as (world, relay):
        fill(world, double)
        hosts = await prepare_hosts(world, relay)
        for host in hosts:
            (host.srv / "site").mkdir()
            (host.srv / "site" / "mine.txt").write_text("was here before\n")
            may_hold(host.srv / "site" / ".env")
        first = await first_pass(world, hosts)
        check_first_pass(world, hosts, first, double)
        check_journal(world)
        await check_second_pass(world)
        await check_one_changed_file(world, relay, hosts)
        await check_removed_file(world, hosts)
        await check_changed_secret(world, double, hosts)
        await check_new_primary(world)


async def first_pass(world: World, hosts: list[Host]) -> Any:
    """One pass; the agents join while it waits for them, and stay."""
    done: list[Any] = []

    async def one_pass() -> None:
        done.append(await world.reconcile())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one_pass)
        for host in hosts:
            await world.start_agent(host)
    return done[0]


def check_first_pass(world: World, hosts: list[Host], first: Any, double: InfisicalDouble) -> None:
    assert {outcome["state"] for outcome in first["outcomes"].values()} == {"succeeded"}
    assert first["findings"] == []
    # Deployed in order, each once, with what the spec says.
    assert deployed(world) == {"api": ["v1.0.0 -"], "database": ["v1.0.0 info"]}
    resources = [step["resource"] for step in first["steps"]]
    assert resources.index("services/staging/database") < resources.index("services/staging/api")
    # One list call, however many use the source.
    assert double.calls("list") == 1
    source = source_tree(world, world.root / "checkout-1")
    for host in hosts:
        check_target(host, source)
        assert (host.root / "marked").exists()
    # Git says so, validly.
    status = world.status()
    validator = Draft202012Validator(json.loads(read_schema("status.v1.schema.json")))
    for path, content in status.items():
        document = yaml.safe_load(content)
        validator.validate(document)
        ready = next(c for c in document["conditions"] if c["type"] == "Ready")
        assert ready["status"] == "True", path
    assert sorted(path.partition("/")[0] for path in status) == [
        "environments",
        *["nodes"] * 2,
        *["projects"] * 2,
        "secrets",
        *["services"] * 2,
        "summary.yaml",
    ]


def check_journal(world: World) -> None:
    """Each target is one task that succeeded, and each host's pairing an event."""
    with Journal(world.state / "journal.sqlite") as journal:
        tasks = [(task.node, task.state, len(task.attempts)) for task in journal.tasks()]
        events = [(event.kind, event.resource, event.reason) for event in journal.events()]
    assert sorted(tasks) == [("web-1", "SUCCESS", 1), ("web-2", "SUCCESS", 1)]
    assert sorted(events) == [("paired", f"nodes/{node}", "Paired") for node in ("web-1", "web-2")]


def check_target(host: Host, source: Path) -> None:
    """The target has exactly the source's tree, the rendered file, and what was there before."""
    target = host.srv / "site"
    found = tree_of(target)
    assert found.pop("mine.txt")[2] == b"was here before\n"
    kind, mode, content = found.pop(".env")
    assert (kind, mode) == ("file", 0o600)
    assert canary("api-key").encode() in content
    assert found == tree_of(source)
    if shutil.which("rsync"):
        differences = [line for line in rsync_differences(source, target) if not line.startswith(".d..t")]
        assert differences == ["*deleting   mine.txt", "*deleting   .env"]


async def check_second_pass(world: World) -> None:
    commits = world.status_commits()
    again = await world.reconcile()
    assert (again["steps"], again["findings"], again["statusCommit"]) == ([], [], None)
    assert world.status_commits() == commits
    # Nothing hangs on the order in which sets are gone through: each of these is a process that was started
    # by itself, while those that are forked share one order.
    for seed in ("1", "2"):
        plan = await world.trueup("plan", "-o", "json", "--detailed-exitcode", PYTHONHASHSEED=seed)
        assert (plan.document["steps"], plan.document["findings"]) == ([], [])
    assert deployed(world) == {"api": ["v1.0.0 -"], "database": ["v1.0.0 info"]}


async def check_one_changed_file(world: World, relay: Relay, hosts: list[Host]) -> None:
    """A change inside one block moves a piece of it to each host, and nothing else happens."""
    changed = bytearray(BIG)
    changed[BLOCK + 5] ^= 0xFF
    world.app.commit({"site/big.bin": bytes(changed)})
    plan = await world.trueup("plan", "-o", "json", "--detailed-exitcode", expect=2)
    assert [step["changes"] for step in plan.document["steps"]] == [["path site"]] * 2
    before = relay.to_agent
    done = await world.reconcile()
    assert {step["resource"].split("/")[0] for step in done["steps"]} == {"projects"}
    for outcome in done["outcomes"].values():
        assert outcome["details"]["bytes_received"] == PIECE
        assert outcome["details"]["files_written"] == 1
    # On the wire: a piece for each host, and room for handshakes, the index and TLS records.
    assert 2 * PIECE < relay.to_agent - before < 2 * PIECE + 64 * 1024
    source = source_tree(world, world.root / "checkout-2")
    for host in hosts:
        check_target(host, source)


async def check_removed_file(world: World, hosts: list[Host]) -> None:
    world.app.commit({"site/old/page.html": None})
    await world.reconcile()
    source = source_tree(world, world.root / "checkout-3")
    for host in hosts:
        assert not (host.srv / "site" / "old").exists()
        check_target(host, source)


async def check_changed_secret(world: World, double: InfisicalDouble, hosts: list[Host]) -> None:
    """A changed key concerns the service and the files that use it, and the plan names it."""
    double.secrets[double.project, "staging", "/"]["DB_PASSWORD"] = canary("rotated")
    plan = await world.trueup("plan", "-o", "json")
    assert {step["resource"].split("/")[0]: step["changes"] for step in plan.document["steps"]} == {
        "services": ["secret DB_PASSWORD"],
        "projects": ["secret .env DB_PASSWORD"],
    }
    # A source that is down changes nothing: the fallback's other value alone causes no step.
    double.secrets[double.project, "staging", "/"]["DB_PASSWORD"] = canary("db-password")
    double.fail_with(server_error(), times=100)
    during = await world.reconcile(expect=0)
    assert during["steps"] == []
    double.recover()
    for host in hosts:
        assert canary("db-password") in (host.srv / "site" / ".env").read_text()


async def check_new_primary(world: World) -> None:
    """The key and the status branch are enough: nothing is redeployed, agents reconnect."""
    successor = world.root / "successor"
    successor.mkdir(mode=0o700)
    shutil.copy(world.state / "master.key", may_hold(successor / "master.key"))
    ran = await world.trueup("reconcile", "-o", "json", TRUEUP_STATE_DIR=str(successor))
    assert (ran.document["steps"], ran.document["findings"]) == ([], [])
    assert deployed(world) == {"api": ["v1.0.0 -"], "database": ["v1.0.0 info"]}
