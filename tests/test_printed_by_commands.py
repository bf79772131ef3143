"""What an allowed command prints of rendered files: no form of a secret leaves them."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.bad_world import make_case
from tests.canaries import may_hold, search_text

SPEC = """\
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      retry: {{attempts: 1}}
      nodes:
        - {{node_id: web-1, target_path: "{target}"}}
      files:
        - {{path: .env, format: dotenv, mode: "0600", secrets: [local]}}
      after: [tell]
nodes:
{nodes}
"""

PRINTS = """\
cat .env; base64 .env; od -An -tx1 .env; python3 -c "print(open('.env', 'rb').read().hex())"; echo end; exit 4
"""


async def test_a_command_that_fails_tells_no_secret_in_any_form(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.head + "nodes: {}\n")
        host = await case.world.add_host("web-1", case.relay)
        script = tmp_path / "tell.sh"
        script.write_text(PRINTS)
        host.extra += ["--allow", f"tell=sh {script}"]
        target = host.srv / "site"
        may_hold(target / ".env")
        added = case.world.spec.read("trueup.yaml").decode()
        nodes = added[added.index("nodes:") :].partition("\n")[2].rstrip()
        case.commit(case.head + SPEC.format(target=target, nodes=nodes))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(case.world.start_agent, host)
            failed = await case.reconcile("--wait-agents", "60s", expect=4)
            nursery.cancel_scope.deadline = trio.current_time() + 60
        slug = str(target).strip("/").replace("/", "+")
        ready = next(
            each
            for each in case.status(f"projects/branch/site/web-1/{slug}")["conditions"]
            if each["type"] == "Ready"
        )
        assert ready["reason"] == "CommandFailed"
        assert "***" in ready["message"]
        assert "end" in ready["message"]
        logs = await case.world.trueup("logs", "projects/site", expect=0)
        assert "***" in logs.stdout
        for told in (failed.stdout, failed.stderr, logs.stdout, ready["message"]):
            assert search_text(told, "what was told") == []
        # What was written, status branch, journal and the agent's log among it, is searched after each test.
