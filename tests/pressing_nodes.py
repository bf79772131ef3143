"""The page's buttons of projects and nodes: files and tasks, a host's certificate, token and pairing."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import trio
import yaml

from tests.browsing import notice, section
from tests.pressing import Pressing

if TYPE_CHECKING:
    from playwright.sync_api import Page


class PressingNodes(Pressing):
    """Each method presses what it is named after; the host's agent is there again at its end."""

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
