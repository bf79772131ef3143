"""Every button of the page, pressed in a real browser: what it says is what the world is like afterwards.

One world serves them all: a real primary, a host with a real agent, and a person with the role operate.
"""

from __future__ import annotations

import re
import shlex
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import TYPE_CHECKING, Any

import trio
import yaml

from tests.browsing import Surfing, log_in, needs_chromium, notice, section, surf, token_of
from tests.canaries import canary, may_hold
from tests.operators import records
from tests.serving import PASS_ENDS, Line, Serving, serving
from tests.world import Host, World, make_world

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from reconciler.control.records import Record

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


class _Pressing:
    """Presses one button after the other. Runs in the browser's thread."""

    def __init__(
        self, world: World, primary: Serving, host: Host, relay: str, env: Path, target: Path, token: str
    ) -> None:
        self.world, self.primary, self.host, self.relay = world, primary, host, relay
        self.env, self.target, self.token = env, target, token

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

    # --- what is asked of the world --------------------------------------------------------------

    def said(self, event: str, after: int, **fields: object) -> None:
        async def wait() -> None:
            await self.primary.said(event, after=after, **fields)

        trio.from_thread.run(wait)

    def quiet(self) -> None:
        """Until every pass has ended that was asked for: none puts right any more what is edited now."""

        def find() -> bool:
            lines = list(self.primary.lines)
            ended = {each.get("trace") for each in lines if each["event"] in PASS_ENDS}
            return ended >= {each["trace"] for each in lines if each["event"] == "a pass was asked for"}

        self.until("the end of all passes", find)

    def asked(self, why: str) -> list[Line]:
        return [each for each in self.primary.lines if each.get("why") == why]

    def now(self) -> int:
        return len(self.primary.lines)

    def deployed(self) -> list[str]:
        return (self.world.deployed / "staging").read_text().splitlines()

    def records(self) -> list[Record]:
        return records(self.world.spec)

    def rows(self, query: str) -> list[Any]:
        with closing(connect(self.world.state / "journal.sqlite", timeout=60)) as journal:
            return journal.execute(query).fetchall()

    def tasks(self) -> list[tuple[str, str]]:
        """(id, state) of each task, the newest first."""
        return self.rows("SELECT id, state FROM tasks ORDER BY rowid DESC")

    def until(self, what: str, find: Any) -> Any:
        """What becomes true with something that the primary logs."""

        async def wait() -> None:
            await self.primary.until(lambda: {"event": ""} if find() else None, what)

        trio.from_thread.run(wait)
        return find()

    def node(self) -> Locator:
        return self.page.get_by_role("article", name="node web-1")

    # --- the buttons -----------------------------------------------------------------------------

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

    def testing_a_connection(self) -> None:
        self.node().get_by_role("button", name="Test connection to web-1").click()
        assert re.search(r"the agent of web-1 answered in [0-9.]+ ms", notice(self.page))

    def another_certificate(self) -> None:
        asked = len(self.asked("connected: web-1"))
        before = self.node().locator("code.whole").inner_text()
        self.node().get_by_role("button", name="Rotate certificate of web-1").click()
        assert notice(self.page) == "the agent of web-1 uses another certificate"
        after = self.node().locator("code.whole").inner_text()
        assert after != before
        assert after in self.world.status()["nodes/web-1.yaml"].decode()
        self.testing_a_connection()
        self.until("a pass for it", lambda: len(self.asked("connected: web-1")) > asked)

    def what_would_change_in_files(self) -> None:
        """As the agent sees them; and nothing is done."""
        page, left = self.page, self.target / "left"
        self.quiet()
        (self.target / "index.html").write_text("somebody else\n")
        left.write_text("not ours\n")
        tasks = self.tasks()
        page.get_by_role("link", name="What would change in site").click()
        place = page.get_by_role("region", name=f"web-1:{self.target}")
        row = place.get_by_role("row").filter(has_text="index.html")
        assert row.get_by_role("cell").all_inner_texts() == ["update", "at most 6 B to send"]
        assert "1 update; at most 6 B to send; 1 foreign; 1 edited there" in place.inner_text()
        assert "left" not in place.get_by_role("table").inner_text()
        self.watched.shoot("files")
        page.get_by_role("link", name="Back to the page").click()
        assert (self.target / "index.html").read_text() == "somebody else\n"
        assert self.tasks() == tasks
        left.unlink()

    def running_a_project(self) -> None:
        before = self.tasks()
        (self.target / "index.html").write_text("somebody else\n")
        after = self.now()
        self.page.get_by_role("button", name="Run site", exact=True).click()
        assert "the next pass syncs site to 1 targets" in notice(self.page)
        self.said("step applied", after, action="sync")
        tasks = self.tasks()
        assert len(tasks) == len(before) + 1
        assert tasks[0][1] == "SUCCESS"
        assert (self.target / "index.html").read_text() == "hello\n"

        # One that is left as it is, is not run; the page says who wants it so.
        projects = section(self.page, "projects")
        projects.get_by_text("Suspend…").click()
        projects.get_by_label("Why").fill("moving")
        projects.get_by_role("button", name="Suspend site").click()
        record = self.records()[-1]
        assert (record.kind, record.resource, record.reason) == ("suspend", "projects/branch/site", "moving")
        self.page.get_by_role("button", name="Run site", exact=True).click()
        assert "projects/branch/site is suspended by olga" in notice(self.page)
        assert len(self.tasks()) == len(tasks)
        projects.get_by_role("button", name="Resume site").click()
        assert self.records()[-1].kind == "resume"

    def form(self) -> Page:
        self.page.get_by_role("link", name="Sync settings of site").click()
        return self.page

    def commit(self) -> str:
        """What the page shows before it is committed."""
        before = self.world.spec.log("main")
        self.page.get_by_role("button", name="Show the commit…").click()
        diff = self.page.locator("pre.diff").inner_text()
        assert self.world.spec.log("main") == before
        self.page.get_by_role("button", name="Commit").click()
        self.page.locator("#headline").wait_for()
        assert len(self.world.spec.log("main")) == len(before) + 1
        author = self.world.spec.git("log", "-1", "--format=%an: %s", "main")
        assert author == "olga: Change how site is synced"
        return diff

    def sync(self) -> Any:
        return yaml.safe_load(self.world.spec.read("trueup.yaml"))["projects"]["site"]["sync"]

    def another_place_and_a_retry(self) -> None:
        """The project's nodes are edited; a place that the agent refuses fails, and can be tried again."""
        page, second = self.page, str(self.target.parent / "second")
        self.form()
        first = page.get_by_role("group", name="Node 1")
        assert first.get_by_label("Node", exact=True).input_value() == "web-1"
        first.get_by_label("Directory there").fill("/not/allowed")
        diff = self.commit()
        assert "/not/allowed" in diff
        assert self.sync()["nodes"] == [{"node_id": "web-1", "target_path": "/not/allowed"}]
        text = self.world.spec.read("trueup.yaml").decode()
        assert "# once" in text
        failed = self.until("a task that failed", lambda: self.tasks()[0][1] == "FAILED" and self.tasks())
        section(page, "tasks").get_by_role("button", name=re.compile("^Retry")).first.click()
        assert "tries projects/branch/site/web-1/not+allowed again" in notice(page)
        self.until("another task", lambda: len(self.tasks()) > len(failed))

        # Back to where it was, and a second entry by labels, for a node that is yet to come.
        self.form()
        page.get_by_role("group", name="Node 1").get_by_label("Directory there").fill(str(self.target))
        new = page.get_by_role("group", name="New entry").first
        new.get_by_label("Or labels").fill("group=db")
        new.get_by_label("Directory there").fill(second)
        new.get_by_text("More").click()
        new.get_by_label("Strategy").select_option("release")
        new.get_by_label("How many releases stay there").fill("5")
        new.get_by_label("Without these paths").fill("*.map\n")
        self.commit()
        entry = {
            "labels": {"group": "db"},
            "target_path": second,
            "strategy": "release",
            "keep": 5,
            "exclude": ["*.map"],
        }
        assert self.sync()["nodes"] == [{"node_id": "web-1", "target_path": str(self.target)}, entry]

        # Somebody who changes the list meanwhile is not overwritten.
        self.form()
        labels = page.get_by_role("group", name="Node 2")
        assert "now no node" in labels.inner_text()
        labels.get_by_label("Take this entry out").check()
        text = self.world.spec.read("trueup.yaml").decode()
        self.world.commit_spec(text.replace("keep: 5", "keep: 6"))
        page.get_by_role("button", name="Show the commit…").click()
        assert "were changed since" in page.get_by_role("alert").inner_text()
        page.get_by_role("link", name="Back to the page").click()
        self.form()
        page.get_by_role("group", name="Node 2").get_by_label("Take this entry out").check()
        self.commit()
        assert self.sync()["nodes"] == [{"node_id": "web-1", "target_path": str(self.target)}]
        self.watched.wrong = [each for each in self.watched.wrong if "409" not in each]

    def another_token(self) -> None:
        old = yaml.safe_load(self.world.spec.read("trueup.yaml"))["nodes"]["web-1"]["token_key"]
        card = self.node()
        card.get_by_text("Rotate token…").click()
        card.get_by_label("HOST:PORT").fill(self.relay)
        card.get_by_role("button", name="Rotate token", exact=True).click()
        join = shlex.split(self.page.locator("pre.secret").inner_text())
        assert join[join.index("--primary") + 1] == self.relay
        spec = yaml.safe_load(self.world.spec.read("trueup.yaml"))
        assert spec["nodes"]["web-1"]["token_key"] != old
        made = self.world.spec.git("log", "-1", "--format=%an: %s", "main")
        assert made == "olga: Rotate the token of web-1"
        self.page.get_by_role("link", name="Back to the page").click()
        assert join[join.index("--token") + 1] not in self.page.content()
        assert "not paired" in self.node().inner_text()
        self.join_again(join[1:])

    def a_pair_reset(self) -> None:
        fingerprint = self.node().locator("code.whole").inner_text()
        self.node().get_by_text("Repair…").click()
        self.node().get_by_role("button", name="Repair", exact=True).click()
        assert "web-1 may join again with its token" in notice(self.page)
        assert "not paired" in self.node().inner_text()
        assert fingerprint not in self.world.status()["nodes/web-1.yaml"].decode()
        self.join_again(self.host.join)

    def a_revocation(self) -> None:
        page = self.page
        self.node().get_by_text("Revoke…").click()
        self.node().get_by_label("Why").fill("stolen")
        self.node().get_by_role("button", name="Revoke", exact=True).click()
        assert "revoke nodes/web-1" in notice(page)
        record = self.records()[-1]
        assert (record.kind, record.resource, record.reason) == ("revoke", "nodes/web-1", "stolen")
        assert "revoked by olga" in self.node().inner_text()
        assert "stolen" in self.node().inner_text()
        self.node().get_by_role("button", name="Test connection to web-1").click()
        assert "web-1 is revoked" in notice(page)
        self.node().get_by_role("button", name="Let back in web-1").click()
        assert (self.records()[-1].kind, self.records()[-1].resource) == ("resume", "nodes/web-1")
        self.node().get_by_text(re.compile("^connected, agent ")).wait_for()
        self.testing_a_connection()

    def join_again(self, join: list[str]) -> None:
        """The host's agent with this command; it is connected, and the page says so without a reload."""

        async def again() -> None:
            await self.world.stop_agents()
            self.host.join = join
            await self.world.start_agent(self.host)

        trio.from_thread.run(again)
        self.node().get_by_text(re.compile("^connected, agent ")).wait_for()
        self.testing_a_connection()

    def on_a_phone(self, watched: Any, scheme: str) -> None:
        page: Page = watched.page
        page.goto(self.primary.http)
        log_in(page, self.token)
        page.get_by_text("live", exact=True).wait_for()
        assert page.viewport_size is not None
        assert page.viewport_size["width"] == 375
        for each in page.locator("details").all():
            each.evaluate("(it) => { it.open = true; }")
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
