"""Releases on a real host: each in a directory of its own, and back to one of them by an operator's word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from tests.bad_world import Case, make_case
from tests.canaries import canary, may_hold
from tests.world import Host

SPEC = """\
projects:
  site:
    repository: app
    environment: staging
    path: site
    sync:
      strategy: release
      keep: 3
      retry: {{attempts: 1}}
      nodes:
        - {{node_id: web-1, target_path: "{target}"}}
      files:
        - {{path: .env, format: dotenv, mode: "0600", secrets: [local]}}
      after: [note]
nodes:
{nodes}
"""


class Site:
    """A project that is released to one host."""

    def __init__(self, case: Case, host: Host) -> None:
        self.case = case
        self.host = host
        self.target = host.srv / "site"
        may_hold(self.target)
        added = case.world.spec.read("trueup.yaml").decode()
        nodes = added[added.index("nodes:") :].partition("\n")[2].rstrip()
        case.commit(case.head + SPEC.format(target=self.target, nodes=nodes))

    def release(self, tag: str, content: str) -> None:
        self.case.world.app.commit({"site/index.html": content})
        self.case.world.app.tag(tag)

    @property
    def current(self) -> tuple[str, str]:
        tree = self.target / "current"
        return (tree / "index.html").read_text(), (tree / ".env").read_text().strip()

    @property
    def ran(self) -> list[str]:
        return (self.host.root / "ran").read_text().split()

    @property
    def status(self) -> dict[str, Any]:
        target = str(self.target).strip("/").replace("/", "+")
        return self.case.status(f"projects/staging/site/web-1/{target}")

    @property
    def kept(self) -> list[str]:
        return [each["revision"].partition("@")[0] for each in self.status["releases"]]

    async def rollback(self, *given: str, expect: int = 0) -> str:
        ran = await self.case.world.trueup("node", "rollback", "web-1", "site", *given, expect=expect)
        return ran.stdout + ran.stderr

    async def planned(self) -> list[tuple[str, str]]:
        document = (await self.case.plan(expect=0)).document
        return [(step["action"], step["reason"]) for step in document["steps"]]


async def test_a_node_goes_back_to_a_release_that_it_keeps_and_stays_there(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.head + "nodes: {}\n")
        host = await case.world.add_host("web-1", case.relay)
        host.extra += ["--allow", f"note=sh -c 'cat index.html >> {host.root / 'ran'}'"]
        site = Site(case, host)
        site.release("v1.0.1", "one\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: case.reconcile("--wait-agents", "60s", expect=0))
            nursery.start_soon(case.world.start_agent, host)
        first = canary("db-password")
        assert site.current == ("one\n", f"DB_PASSWORD={first}")
        assert await site.planned() == []
        site.release("v1.1.0", "two\n")
        await case.reconcile(expect=0)
        assert site.kept == ["v1.0.1", "v1.1.0"]
        assert (site.current[0], site.ran) == ("two\n", ["one", "two"])

        # Offline: the next pass does it, although there is another secret and a new release.
        await site.rollback("--reason", "it is slow")
        case.env_file.write_text(f"DB_PASSWORD={canary('db-second')}\n")
        site.release("v1.2.0", "three\n")
        [(action, reason)] = await site.planned()
        assert action == "sync"
        assert reason.startswith("rolled back to v1.0.1@sha1:")
        assert reason.endswith("UTC: it is slow")
        await case.reconcile(expect=0)
        assert site.current == ("one\n", f"DB_PASSWORD={first}")
        assert site.ran == ["one", "two", "one"]
        assert site.status["rolledBack"].endswith("it is slow")
        assert site.status["lastAppliedRevision"].startswith("v1.0.1@")
        assert site.status["counts"].get("foreign", 0) == 0
        assert await site.planned() == []
        [note] = (await case.plan(expect=0)).document["notes"]
        assert "is rolled back to v1.0.1@sha1:" in note
        assert "`trueup node rollback web-1 site --lift` ends that" in note
        # What is named goes there from there too.
        await site.rollback("--to", "v1.1.0")
        await case.reconcile(expect=0)
        assert site.current[0] == "two\n"

        # Lifted: the newest, with the newest secret.
        await site.rollback("--lift")
        assert await site.planned() == [("sync", "the rollback of the node was lifted")]
        await case.reconcile(expect=0)
        assert site.current == ("three\n", f"DB_PASSWORD={canary('db-second')}")
        assert site.kept == ["v1.0.1", "v1.1.0", "v1.2.0"]
        assert "rolledBack" not in site.status

        # Drift is healed; what the spec no longer names goes.
        (site.target / "current/index.html").write_text("edited\n")
        await case.reconcile(expect=0)
        assert site.current[0] == "three\n"
        assert await site.planned() == []
