"""Every button of the page, pressed in a real browser: what it says is what the world is like afterwards.

One world serves them all: a real primary, a host with a real agent, and a person with the role operate.
Here are the buttons of secrets, releases and services; `PressingNodes` has those of projects and nodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browsing import Surfing, log_in, needs_chromium, notice, section, surf, token_of
from tests.canaries import canary, may_hold
from tests.pressing_nodes import PressingNodes
from tests.serving import serving
from tests.world import make_world

if TYPE_CHECKING:
    from playwright.sync_api import Page

SPEC = """\
version: 1  # ours
repositories:
  app: {{url: "{app}", branch: main}}
environments:
  staging: {{release: {{from: main, cut: external}}}}
secret_sources:
  local: {{kind: env_file, file: "{env}", cache_ttl: 1h}}
services:
  web:
    repository: app
    paths: ["web/**"]
    secrets: [local]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      retry: {{attempts: 1}}  # once
      nodes:
        - {{node_id: web-1, target_path: "{target}"}}  # the first
"""

TASKS = """\
import os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    with (Path({root!r}) / os.environ["TRUEUP_ENVIRONMENT"]).open("a") as log:
        log.write(os.environ["TRUEUP_TAG"] + " " + str(len(os.environ["COLOUR"])) + "\\n")
"""


@needs_chromium
async def test_every_button_does_what_it_says(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        world.environment |= {"TRUEUP_INTERVAL": "24h"}
        env = may_hold(tmp_path / "local.env")
        env.touch(0o600)
        env.write_text(f"COLOUR={canary('colour')}\n")
        world.app.commit(
            {
                "tasks.py": TASKS.format(root=str(world.deployed)),
                "web/index.html": "one\n",
                "site/index.html": "hello\n",
            }
        )
        world.app.tag("v1.0.0")
        target = tmp_path / "hosts" / "web-1" / "srv" / "site"
        world.commit_spec(SPEC.format(app=world.app.url, env=env, target=target))
        host = await world.add_host("web-1", relay.address)
        tokens = tmp_path / "tokens"
        tokens.touch(0o600)
        async with serving(world, options=["-v"], TRUEUP_API_TOKENS_FILE=str(tokens)) as primary:
            await world.start_agent(host)
            await primary.said("step applied", action="sync")
            await primary.said("step applied", action="deploy")
            token = await token_of(world, tokens, "olga", "operate")
            pressing = _Pressing(world, primary, host, relay.address, env, target, token)
            await surf(pressing.run)
            await world.stop_agents()


class _Pressing(PressingNodes):
    """Presses one button after the other."""

    def run(self, surfing: Surfing) -> None:
        with surfing.person() as context:
            self.watched = surfing.watched(context, self.primary.http)
            self.page = self.watched.page
            self.page.goto(self.primary.http)
            log_in(self.page, self.token)
            for part in (
                self.secrets,
                self.freezing,
                self.rolling_back,
                self.why_a_service_is_so,
                self.testing_a_connection,
                self.another_certificate,
                self.what_would_change_in_files,
                self.running_a_project,
                self.another_place_and_a_retry,
                self.another_token,
                self.a_pair_reset,
                self.a_revocation,
            ):
                part()
            self.watched.check()
        for scheme in ("light", "dark"):
            with surfing.person(scheme=scheme, phone=True) as context:
                self.on_a_phone(surfing.watched(context, self.primary.http), scheme)

    def secrets(self) -> None:
        """What was fetched is good for an hour; both buttons have the source itself asked."""
        sources = section(self.page, "sources")
        assert self.deployed() == [f"v1.0.0 {len(canary('colour'))}"]
        for value, button, told in (
            ("colour-two", "Sync local", "Secret local synced successfully"),
            ("another-colour", "Clear cache of local", "Cache of secret local cleared"),
        ):
            after = self.now()
            self.env.write_text(f"COLOUR={canary(value)}\n")
            sources.get_by_role("button", name=button).click()
            assert told in notice(self.page)
            self.said("step applied", after, action="deploy")
            assert self.deployed()[-1] == f"v1.0.0 {len(canary(value))}"
        assert "COLOUR" in sources.inner_text() or sources.get_by_text("1 name").count()

    def freezing(self) -> None:
        page = self.page
        page.get_by_text("Freeze everything…").click()
        page.get_by_label("Why").first.fill("fire drill")
        page.get_by_role("button", name="Freeze", exact=True).click()
        assert "recorded 1: freeze" in notice(page)
        [record] = self.records()
        assert (record.kind, record.reason, record.by.split(" <")[0]) == ("freeze", "fire drill", "olga")
        assert "fire drill" in section(page, "overview").inner_text()
        author = self.world.spec.git("log", "-1", "--format=%an", "refs/heads/trueup/control")
        assert author == "olga"
        before, after = self.deployed(), self.now()
        self.world.app.commit({"web/index.html": "two\n"})
        self.world.app.tag("v1.1.0")
        page.get_by_role("button", name="Look now").click()
        self.said("pass ended", after)
        assert self.deployed() == before
        page.get_by_role("button", name="Unfreeze").click()
        assert "recorded 2: unfreeze" in notice(page)
        self.said("step applied", after, action="deploy")
        assert self.deployed()[-1].startswith("v1.1.0 ")
        assert [each.kind for each in self.records()] == ["freeze", "unfreeze"]

    def rolling_back(self) -> None:
        staging = self.page.get_by_role("article", name="environment staging")
        staging.get_by_text("Roll back…").wait_for()  # by itself, once a release came before
        staging.get_by_text("Roll back…").click()
        staging.get_by_label("To").select_option("v1.0.0")
        staging.locator("[id='rollback-reason:staging/app']").fill("it is slow")
        after = self.now()
        staging.get_by_role("button", name="Roll back", exact=True).click()
        assert "recorded 3: roll" in notice(self.page)
        record = self.records()[-1]
        assert (record.kind, record.tag, record.reason) == ("rollback", "v1.0.0", "it is slow")
        self.said("step applied", after, action="deploy")
        assert self.deployed()[-1].startswith("v1.0.0 ")
        self.page.get_by_role("button", name="Let go on app in staging").click()
        assert "recorded 4: unhold app in staging" in notice(self.page)
        assert self.records()[-1].kind == "unhold"
        self.quiet()  # the pass that this asked for does not look at what comes next
        # It goes on with the next release, and does not take back what somebody went away from.
        after = self.now()
        self.world.app.commit({"web/index.html": "three\n"})
        self.world.app.tag("v1.2.0")
        self.what_would_change()
        self.page.get_by_role("button", name="Look now").click()
        self.said("step applied", after, action="deploy")
        assert self.deployed()[-1].startswith("v1.2.0 ")

    def what_would_change(self) -> None:
        """The plan is looked at, and nothing is done."""
        before = self.deployed()
        self.page.get_by_role("link", name="What would change…").click()
        steps = self.page.get_by_role("row")
        assert "changed: path web/**" in steps.filter(has_text="services/staging/web").inner_text()
        self.watched.shoot("what-would-change")
        self.page.get_by_role("link", name="Back to the page").click()
        assert self.deployed() == before

    def why_a_service_is_so(self) -> None:
        page = self.page
        section(page, "services").get_by_text("v1.2.0").first.wait_for()  # by itself
        section(page, "services").get_by_role("link", name="web").click()
        assert page.locator("#ready").inner_text() == "Ready"
        shown = page.locator("main").inner_text()
        assert "nothing: the last pass found it in order" in shown or "deploy" in shown
        commit = self.world.app.resolve("refs/tags/v1.2.0^{commit}")
        assert commit is not None
        assert f"at {commit[:10]}" in shown
        assert "by the tag v1.2.0" in shown
        assert "changed: path web/**" in shown  # the newest step, and why it was made
        self.watched.shoot("service")
        page.get_by_text("Suspend…").click()
        page.get_by_label("Why").fill("being replaced")
        page.get_by_role("button", name="Suspend web").click()
        assert (self.records()[-1].kind, self.records()[-1].resource) == ("suspend", "services/staging/web")
        waits = page.locator("#todos").get_by_role("link", name="web in staging is suspended")
        page.locator("main > .notice[role=status]:focus").wait_for()
        waits.click()
        page.get_by_role("button", name="Resume web").click()
        assert self.records()[-1].kind == "resume"

    def on_a_phone(self, watched: Any, scheme: str) -> None:
        page: Page = watched.page
        page.goto(self.primary.http)
        log_in(page, self.token)
        page.get_by_text("live", exact=True).wait_for()
        assert page.viewport_size is not None
        assert page.viewport_size["width"] == 375
        page.locator("details").evaluate_all("(all) => all.forEach((each) => { each.open = true; })")
        watched.fits()
        watched.shoot(f"buttons-phone-{scheme}")
        for path, name in (
            ("node?name=web-1", "node-form"),
            ("project?name=site", "project-form"),
            ("service?id=services/staging/web", "service"),
            ("plan", "plan"),
        ):
            page.goto(f"{self.primary.http}/page/{path}")
            watched.fits()
            watched.shoot(f"{name}-phone-{scheme}")
        watched.check()
