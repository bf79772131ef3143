"""What somebody with the role operate does on the page: sees it change, decides, changes the spec."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from tests.browsing import Surfing, log_in, notice, section, token_of
from tests.serving import Serving
from tests.world import World

if TYPE_CHECKING:
    from playwright.sync_api import Page

EVIL = "<img src=x onerror=alert(1)>"
"""What would run if it were not shown as text."""


class Operating:
    """An operator at the page of a primary. Runs in the browser's thread."""

    surfing: Surfing
    operator: str
    """The operator's token."""

    def __init__(self, world: World, primary: Serving, file: Path) -> None:
        self.world, self.primary, self.file = world, primary, file
        self.origin = primary.http
        self.tokens: list[str] = []

    def token(self, name: str, role: str) -> str:
        token = trio.from_thread.run(token_of, self.world, self.file, name, role)
        self.tokens.append(token)
        return token

    async def said(self, event: str, after: int) -> None:
        await self.primary.said(event, after=after)

    async def ask_for_a_pass(self) -> None:
        assert (await self.primary.ask_locally("POST", "/api/reconcile")).status_code == 202

    def who_operates(self) -> None:
        with self.surfing.person() as context, self.surfing.person(phone=True) as other:
            watched = self.surfing.watched(context, self.origin)
            page = watched.page
            page.goto(self.origin)
            log_in(page, self.operator)
            page.get_by_text("live", exact=True).wait_for()
            self.keyboard(page)
            watched.shoot("operator")
            self.live_update(page)
            watched.shoot("operator-after")
            watched.check()
            phone = self.surfing.watched(other, self.origin)
            phone.page.goto(self.origin)
            log_in(phone.page, self.operator)
            phone.page.get_by_text("live", exact=True).wait_for()
            phone.fits()
            phone.shoot("operator-phone")
            phone.page.get_by_role("button", name="Log out").click()
            phone.page.get_by_label("API token").wait_for()
            assert other.cookies() == []
            phone.check()

    def keyboard(self, page: Page) -> None:
        page.locator("body").press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        page.keyboard.press("Enter")
        page.locator("#main:focus").wait_for()
        unnamed = page.evaluate(
            "() => [...document.querySelectorAll('button, input:not([type=hidden]), select')].filter((it) =>"
            " !(it.textContent.trim() || it.getAttribute('aria-label') || it.labels?.length)).length"
        )
        assert unnamed == 0

    def live_update(self, page: Page) -> None:
        """A commit shows itself, and what the person was doing stays."""
        page.evaluate("window.mark = 1")
        services = section(page, "services")
        services.locator("details.hash").first.locator("summary").click()
        opened = services.locator("details.hash").first.get_attribute("id")
        self.world.app.commit({"web/index.html": "two\n"})
        self.world.app.tag("v1.1.0")
        trio.from_thread.run(self.ask_for_a_pass)
        services.get_by_text("v1.1.0").first.wait_for()
        section(page, "history").get_by_text("v1.1.0").first.wait_for()
        assert page.evaluate("window.mark") == 1
        assert page.evaluate("(id) => document.getElementById(id).open", opened)
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
        assert (self.world.deployed / "staging").read_text().split() == ["v1.0.0", "v1.1.0"]

    def who_decides(self) -> None:
        """Buttons do what they say: a record on the control branch, and what comes of it."""
        with self.surfing.person(scheme="dark") as context:
            watched = self.surfing.watched(context, self.origin)
            page = watched.page
            page.goto(self.origin)
            log_in(page, self.operator)
            production = page.get_by_role("article", name="environment production")
            production.get_by_text("Hold…").click()
            production.get_by_label("Why").fill(f"sale day {EVIL}")
            production.get_by_role("button", name="Hold production").click()
            assert "recorded 1: hold production" in notice(page)
            assert "held by olga" in production.inner_text()
            assert f"sale day {EVIL}" in production.inner_text()
            [held] = self.records()
            assert "kind: hold" in held
            assert "olga" in held

            production.get_by_role("button", name="Let go on production").click()
            assert "recorded 2: unhold production" in notice(page)
            assert "held by" not in production.inner_text()

            # Promoting takes the name of where it goes; approving lets it in.
            self.promote(page, "prod")
            assert "not done: to confirm it, type production" in notice(page)
            assert len(self.records()) == 2
            self.promote(page, "production")
            assert "recorded 3: promote app to production" in notice(page)
            approve = production.get_by_role("button", name="Approve v1.1.0 of app in production")
            approve.wait_for()  # by itself
            watched.shoot("awaiting-approval-dark")
            approve.click()
            assert "recorded 4: approve" in notice(page)
            assert "kind: approve" in self.records()[3]
            watched.check()

    def promote(self, page: Page, confirm: str) -> None:
        production = page.get_by_role("article", name="environment production")
        production.get_by_text("Promote…").click()
        production.get_by_label("Type production to confirm").fill(confirm)
        production.get_by_role("button", name="Promote", exact=True).click()

    def records(self) -> list[str]:
        files = self.world.spec.files("refs/heads/trueup/control")
        return [files[path].decode() for path in sorted(files)]

    def who_changes_the_spec(self) -> None:
        """Forms show the commit first; what is shown is what is made."""
        with self.surfing.person() as context:
            watched = self.surfing.watched(context, self.origin)
            page, spec = watched.page, self.world.spec
            page.goto(self.origin)
            log_in(page, self.operator)

            page.get_by_role("link", name="Add a node…").click()
            page.get_by_label("Name in the spec").fill("web-9")
            page.get_by_label("Labels").fill("group=web\nnote=" + EVIL)
            before = spec.log("main")
            page.get_by_role("button", name="Show the commit…").click()
            shown = page.locator("main").inner_text()
            assert "olga" in shown
            assert "web-9" in page.locator("pre.diff").inner_text()
            watched.shoot("commit")
            assert spec.log("main") == before
            page.get_by_role("button", name="Commit").click()
            join = page.locator("pre.secret").inner_text()
            assert re.search(r"trueup-agent join .*--node web-9 --token \S+ --pin [0-9a-f]{64}", join)
            self.tokens.append(re.search(r"--token (\S+)", join).group(1))  # type: ignore[union-attr]
            watched.shoot("join")
            assert len(spec.log("main")) == len(before) + 1
            assert "web-9" in spec.files("main")["trueup.yaml"].decode()
            page.get_by_role("link", name="Back to the page").click()
            assert self.tokens[-1] not in page.content()
            page.get_by_role("article", name="node web-9").wait_for()  # by itself

            page.get_by_role("link", name="Sync settings of site").click()
            page.get_by_label("On drift").select_option("report")
            page.get_by_label("Leave out, one pattern a line").fill("*.log\n  node_modules/**  ")
            page.get_by_role("button", name="Show the commit…").click()
            diff = page.locator("pre.diff").inner_text()
            assert "on_drift" in diff
            assert "node_modules/**" in diff
            # Somebody else was faster: what is shown would not be what is made.
            self.world.commit_spec(spec.files("main")["trueup.yaml"].decode() + "# another line\n")
            page.get_by_role("button", name="Commit").click()
            page.get_by_role("alert").wait_for()
            assert "on_drift" not in spec.files("main")["trueup.yaml"].decode()
            page.goto(f"{self.origin}/page/project?name=site")
            page.get_by_label("On drift").select_option("report")
            page.get_by_role("button", name="Show the commit…").click()
            page.get_by_role("button", name="Commit").click()
            page.locator("#headline").wait_for()
            assert "on_drift: report" in spec.files("main")["trueup.yaml"].decode()

            page.goto(f"{self.origin}/page/node?name=web-9")
            page.get_by_role("button", name="Show the commit that removes it…").click()
            page.get_by_role("button", name="Commit").click()
            page.locator("#headline").wait_for()
            assert "web-9" not in spec.files("main")["trueup.yaml"].decode()
            assert [each for each in watched.wrong if "409" not in each] == []
