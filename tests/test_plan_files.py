"""`trueup plan --files`: what it prints of real agents, beside a running primary and without one."""

from pathlib import Path

from agent.node_token import NodeToken
from tests.serving import serving
from tests.specs import ONE_SITE
from tests.world import make_world, tree_of

SPEC = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
nodes:
  web-2: {{token_key: "{key}"}}
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      on_drift: report
      delete_foreign: true
      nodes:
        - {{node_id: web-1, target_path: "{root}/site"}}
        - {{node_id: web-2, target_path: /srv/site}}
"""

KEPT = (
    ONE_SITE
    + """\
      on_local_edit: keep
      nodes: [{{node_id: web-1, target_path: "{root}/site"}}]
"""
)


async def test_what_a_sync_would_do_to_files(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        world.app.commit({"site/a.html": "one\n", "site/b.html": "two\n"})
        root = tmp_path / "hosts" / "web-1" / "srv"
        key = NodeToken.generate().public_text
        world.commit_spec(SPEC.format(app=world.app.url, root=root, key=key))
        host = await world.add_host("web-1", relay.address)
        async with serving(world) as primary:
            assert (await world.join(host)).exit_code == 0
            await world.start_agent(host, joined=True)
            await primary.said("step applied")

            # Through the running primary: what is there, what git has by now, and who cannot be asked.
            world.app.commit({"site/a.html": "three\n", "site/new.html": "four\n"})
            (root / "site/b.html").unlink()
            (root / "site/\x1b[31mred").write_text("somebody's\n")
            before = tree_of(root)
            ran = await world.trueup("plan", "--files", "site", "--detailed-exitcode", expect=1)
            assert tree_of(root) == before
            [known, unknown] = ran.stdout.split("\n\n")
            [head, *lines] = known.splitlines()
            assert head.startswith("projects/branch/site/web-1/")
            assert f": web-1:{root}/site to main@" in head
            assert lines == [
                "  delete  \\x1b[31mred",
                "  update  a.html  (at most 6 B to send)",
                "  create  b.html  (at most 4 B to send)",
                "  create  new.html  (at most 5 B to send)",
                "  2 create, 1 delete (1 foreign), 1 update; at most 15 B to send",
            ]
            assert "  unknown: AwaitingPairing: web-2 has never been paired" in unknown
            document = (await primary.ask_locally("GET", "/api/sync/projects/site/files")).json()
            assert [target["state"] for target in document["targets"]] == ["changes", "unknown"]
            assert document["targets"][0]["requestedBytes"] == 15
            missing = await primary.ask_locally("GET", "/api/sync/projects/none/files")
            assert missing.status_code == 404

        # Where no primary runs, the agents come to this one; the lease and the status stay as they are.
        commits = world.status_commits()
        ran = await world.trueup("plan", "--files", "projects/branch/site", "-o", "json", expect=1)
        assert [item["path"] for item in ran.document["targets"][0]["items"]] == [
            "\x1b[31mred",
            "a.html",
            "b.html",
            "new.html",
        ]
        assert tree_of(root) == before
        assert world.status_commits() == commits
        ran = await world.trueup("plan", "--files", "nothing", expect=1)
        assert ran.stderr.startswith("error: the spec has no project nothing with targets")


async def test_local_edits_that_stay_are_told_of_and_are_nothing_to_do(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        world.app.commit({"site/a.html": "one\n", "site/b.html": "two\n"})
        root = tmp_path / "hosts" / "web-1" / "srv"
        world.commit_spec(KEPT.format(app=world.app.url, root=root))
        host = await world.add_host("web-1", relay.address)
        async with serving(world) as primary:
            assert (await world.join(host)).exit_code == 0
            await world.start_agent(host, joined=True)
            applied = await primary.said("step applied")
            await primary.said("pass ended", trace=applied["trace"])
            assert "local edit" not in (await world.trueup("get", "projects")).stdout
            (root / "site/a.html").write_text("mine\n")
            ran = await world.trueup("plan", "--files", "site", "--detailed-exitcode", expect=0)
            assert ran.stdout.splitlines()[1:] == ["  keep  a.html", "  1 keep; 1 edited there"]
            document = (await primary.ask_locally("GET", "/api/sync/projects/site/files")).json()
            [target] = document["targets"]
            assert (target["state"], target["counts"], target["localEdits"]) == ("equal", {"keep": 1}, 1)
        # A pass comes upon it, leaves it, and records that; and so does one once that is over.
        stays = "1 local edit stays there (`on_local_edit: keep`)"
        await world.reconcile("--wait-agents", "100s")
        assert stays in (await world.trueup("get", "projects")).stdout
        assert (root / "site/a.html").read_text() == "mine\n"
        commits = world.status_commits()
        await world.reconcile("--wait-agents", "100s")
        assert world.status_commits() == commits
        (root / "site/a.html").write_text("one\n")
        await world.reconcile("--wait-agents", "100s")
        assert stays not in (await world.trueup("get", "projects")).stdout
