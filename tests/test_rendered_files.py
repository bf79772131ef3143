"""An env file and a template on a host: placed as asked, and written again only when they have changed."""

import grp
import os
import pwd
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.bad_world import Case, make_case
from tests.canaries import canary, may_hold
from tests.contracts.infisical_double import InfisicalDouble
from tests.vault import vault, vault_environment
from tests.world import Host

SPEC = """\
{vault}
nodes:
{nodes}
projects:
  site:
    repository: app
    environment: staging
    path: site
    sync:
      nodes: [{{node_id: web-1, target_path: "{target}"}}]
      files:
        - {{path: .env, format: dotenv, secrets: [{{source: vault, keys: [API_KEY]}}]}}
        - path: etc/app.toml
          template: deploy/app.toml.j2
          mode: "0640"
          owner: {owner}
          group: {group}
          env: {{WORKERS: "4"}}
          secrets: [{{source: vault, keys: [DB_PASSWORD, HOSTS]}}]
      after: [restart]
"""

TEMPLATE = """\
workers = {{ WORKERS|int }}
password = {{ DB_PASSWORD|tojson }}
{% for host in HOSTS.split(",") %}
[[host]]
name = {{ host|tojson }}
{% endfor %}
"""

SITE_ID = "projects/staging/site/web-1/"


class Placed:
    """What a host has, and how often its command ran."""

    def __init__(self, host: Host) -> None:
        self.target = host.srv / "site"
        self.env = may_hold(self.target / ".env")
        self.toml = may_hold(self.target / "etc" / "app.toml")
        self.ran = host.root / "ran"

    def runs(self) -> int:
        return len(self.ran.read_text().splitlines())

    def written(self, path: Path) -> tuple[int, int]:
        """Another one after each time that the file was written."""
        status = path.stat()
        return status.st_ino, status.st_mtime_ns

    def mode_and_owner(self, path: Path) -> tuple[int, int, int]:
        status = path.stat()
        return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid

    def check(self, password: str, key: str) -> None:
        assert self.env.read_text() == f"API_KEY={key}\n"
        assert tomllib.loads(self.toml.read_text()) == {
            "workers": 4,
            "password": password,
            "host": [{"name": "a.example"}, {"name": "b.example"}],
        }
        assert self.mode_and_owner(self.env) == (0o600, os.getuid(), os.getgid())
        assert self.mode_and_owner(self.toml) == (0o640, os.getuid(), os.getgid())
        assert sorted(path.name for path in self.target.iterdir()) == [".env", "etc", "index.html"]


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as running:
        running.secrets[running.project, "staging", "/"] = {
            "API_KEY": canary("rendered-key"),
            "DB_PASSWORD": canary("rendered-password") + "\"\\'$x",
            "HOSTS": "a.example,b.example",
            "NOBODY_S": canary("rendered-other"),
        }
        yield running


async def prepare(case: Case, double: InfisicalDouble) -> Host:
    case.world.environment |= vault_environment(double)
    case.world.app.commit({"deploy/app.toml.j2": TEMPLATE})
    case.world.app.tag("v1.1.0")
    case.commit(case.head + "nodes: {}\n")
    host = await case.world.add_host("web-1", case.relay)
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    host.extra += ["--allow", f"restart=sh -c 'echo ran >> {host.root / 'ran'}'"]
    host.extra += sorted({f"--owner={owner}", f"--owner={group}"})
    added = case.world.spec.read("trueup.yaml").decode()
    case.commit(
        case.head
        + SPEC.format(
            vault=vault(double, cache_ttl="0s"),
            nodes=added[added.index("nodes:") :].partition("\n")[2].rstrip(),
            target=host.srv / "site",
            owner=owner,
            group=group,
        )
    )
    return host


async def changes(case: Case) -> list[str]:
    """What a plan names; then a pass does it, and nothing is left to do."""
    planned = await case.plan(expect=0)
    await case.reconcile(expect=0)
    again = await case.plan("--detailed-exitcode", expect=0)
    assert (again.document["steps"], again.document["findings"]) == ([], [])
    return [change for step in planned.document["steps"] for change in step["changes"]]


async def test_only_the_files_whose_content_changed_are_written(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    stored = double.secrets[double.project, "staging", "/"]
    async with make_case(tmp_path) as case:
        host = await prepare(case, double)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: case.reconcile(expect=0))
            await case.world.start_agent(host)
        placed = Placed(host)
        placed.check(stored["DB_PASSWORD"], stored["API_KEY"])
        assert placed.runs() == 1

        # Nothing changed: nothing is written, and the command does not run.
        env, toml = placed.written(placed.env), placed.written(placed.toml)
        assert (await case.reconcile(expect=0)).document["steps"] == []
        assert await changes(case) == []
        assert (placed.written(placed.env), placed.written(placed.toml), placed.runs()) == (env, toml, 1)

        # A secret of the template changes: the env file is left alone.
        stored["DB_PASSWORD"] = canary("rendered-second") + "'\n\u2028"
        assert await changes(case) == ["secret etc/app.toml DB_PASSWORD"]
        placed.check(stored["DB_PASSWORD"], stored["API_KEY"])
        assert placed.written(placed.env) == env
        assert placed.written(placed.toml) != toml
        assert placed.runs() == 2

        # One of the env file: the template's file is left alone.
        toml = placed.written(placed.toml)
        stored["API_KEY"] = canary("rendered-third")
        assert await changes(case) == ["secret .env API_KEY"]
        placed.check(stored["DB_PASSWORD"], stored["API_KEY"])
        assert placed.written(placed.toml) == toml
        assert placed.written(placed.env) != env
        assert placed.runs() == 3

        # One that nothing uses.
        env = placed.written(placed.env)
        stored["NOBODY_S"] = canary("rendered-fourth")
        assert await changes(case) == []
        assert (placed.written(placed.env), placed.written(placed.toml), placed.runs()) == (env, toml, 3)

        await check_new_template(case, placed)
        await check_broken_template(case, placed)


async def check_new_template(case: Case, placed: Placed) -> None:
    """A release with another template: the plan names it. A mode that somebody changed is put right."""
    env = placed.written(placed.env)
    case.world.app.commit({"deploy/app.toml.j2": "# new\n" + TEMPLATE})
    case.world.app.tag("v1.2.0")
    assert await changes(case) == ["template deploy/app.toml.j2"]
    assert placed.toml.read_text().startswith("# new\nworkers = 4\n")
    assert (placed.written(placed.env), placed.runs()) == (env, 4)
    placed.toml.chmod(0o644)
    await case.reconcile(expect=0)
    assert placed.mode_and_owner(placed.toml)[0] == 0o640
    assert placed.written(placed.env) == env


async def check_broken_template(case: Case, placed: Placed) -> None:
    """One line says what and where; on the host everything stays."""
    env, toml = placed.written(placed.env), placed.written(placed.toml)
    case.world.app.commit({"deploy/app.toml.j2": TEMPLATE + "{{ DB_PASWORD }}\n"})
    case.world.app.tag("v1.3.0")
    ran = await case.reconcile(expect=4)
    said = (
        "deploy/app.toml.j2:7: `DB_PASWORD` is not defined; names near it: DB_PASSWORD; add it to `secrets` "
        "or `env` of this file, or write `|default('…')` behind it"
    )
    assert said in ran.stderr
    for text in (ran.stdout, ran.stderr):
        assert canary("rendered-second") not in text
    [site] = [id for id in case.world.status() if id.startswith(SITE_ID)]
    assert case.ready(site.removesuffix(".yaml")) == ("False", "TemplateInvalid", said)
    assert (placed.written(placed.env), placed.written(placed.toml)) == (env, toml)
