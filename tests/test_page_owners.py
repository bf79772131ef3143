"""Whose the files of a live directory are on a host, chosen in the page's form in a browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.browsing import Surfing, log_in, needs_chromium, surf, token_of
from tests.serving import serving
from tests.world import make_world

if TYPE_CHECKING:
    from playwright.sync_api import Page

SPEC = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
nodes: {{}}
projects:
  live:
    source: {{directory: "{live}"}}
    sync: {{retry: {{attempts: 1}}, nodes: [{{node_id: web-1, target_path: "{root}/live"}}]}}
  site:
    repository: app
    branch: main
    sync: {{retry: {{attempts: 1}}, nodes: [{{node_id: web-1, target_path: "{root}/site"}}]}}
"""

DAEMON = 1


@needs_chromium
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_owners_are_left_alone_once_the_form_says_so(tmp_path: Path) -> None:
    live, root = tmp_path / "assets", tmp_path / "hosts" / "web-1" / "srv"
    live.mkdir()

    def add(name: str) -> None:
        (tmp_path / name).write_text(f"{name}\n")
        os.chown(tmp_path / name, DAEMON, DAEMON)
        (tmp_path / name).rename(live / name)

    add("first")
    async with make_world(tmp_path) as (world, relay):
        world.environment |= {"TRUEUP_INTERVAL": "24h"}
        world.app.commit({"index.html": "one\n"})
        world.commit_spec(SPEC.format(app=world.app.url, live=live, root=root))
        host = await world.add_host("web-1", relay.address)
        host.extra += ["--owner=daemon"]
        tokens = tmp_path / "tokens"
        tokens.touch(0o600)
        async with serving(world, options=["-v"], TRUEUP_API_TOKENS_FILE=str(tokens)) as primary:
            await world.start_agent(host)
            await primary.said("step applied", action="sync")
            token = await token_of(world, tokens, "olga", "operate")

            def form(page: Page, project: str) -> None:
                page.get_by_role("link", name=f"Sync settings of {project}").click()

            def choose(surfing: Surfing) -> None:
                with surfing.person() as context:
                    watched = surfing.watched(context, primary.http)
                    page = watched.page
                    page.goto(primary.http)
                    log_in(page, token)
                    form(page, "site")
                    assert page.get_by_label("Whose the files are there").count() == 0
                    page.get_by_role("link", name="Cancel").click()
                    form(page, "live")
                    assert page.get_by_label("Whose the files are there").input_value() == "names"
                    page.get_by_label("Whose the files are there").select_option("none")
                    watched.shoot("project-form-owners")
                    page.get_by_role("button", name="Show the commit…").click()
                    assert "owners: none" in page.locator("pre.diff").inner_text()
                    page.get_by_role("button", name="Commit").click()
                    page.locator("#headline").wait_for()
                    watched.check()

            await surf(choose)
            sync = yaml.safe_load(world.spec.read("trueup.yaml"))["projects"]["live"]["sync"]
            assert sync["owners"] == "none"
            assert sync["nodes"]
            # What came before is the one's that it was given to, what comes now is the agent's.
            add("second")
            await primary.look()
            while not (root / "live/second").exists():
                told = len(primary.lines)
                await primary.looked(told)
            assert [(root / "live" / name).stat().st_uid for name in ("first", "second")] == [DAEMON, 0]
            assert await primary.end() == 0
