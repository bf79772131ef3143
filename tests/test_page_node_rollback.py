"""The way back for one node, pressed on the page in a browser: where `current` leads on its host then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio

from tests.browsing import Surfing, log_in, needs_chromium, notice, surf, token_of
from tests.operators import records
from tests.serving import Serving, serving
from tests.specs import ONE_SITE
from tests.world import World, make_world

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SPEC = (
    ONE_SITE
    + """\
      strategy: release
      keep: 3
      retry: {{attempts: 1}}
      nodes: [{{node_id: web-1, target_path: "{target}"}}]
"""
)


@needs_chromium
async def test_a_node_goes_back_and_forth_by_two_buttons(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        world.environment |= {"TRUEUP_INTERVAL": "24h"}
        target = tmp_path / "hosts" / "web-1" / "srv" / "site"
        world.commit_spec(SPEC.format(app=world.app.url, target=target))
        world.app.commit({"site/index.html": "one\n"})
        host = await world.add_host("web-1", relay.address)
        tokens = tmp_path / "tokens"
        tokens.touch(0o600)
        async with serving(world, options=["-v"], TRUEUP_API_TOKENS_FILE=str(tokens)) as primary:
            await world.start_agent(host)
            await primary.said("step applied", action="sync")
            going = _Going(world, primary, target)
            going.operator = await token_of(world, tokens, "olga", "operate")
            going.reader = await token_of(world, tokens, "rita", "read")
            for content in ("two\n", "three\n"):
                told = len(primary.lines)
                world.app.commit({"site/index.html": content})
                assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202
                await primary.said("step applied", after=told, action="sync")
            await primary.look()
            await surf(going.run)
            assert await primary.end() == 0


class _Going:
    """Runs in the browser's thread."""

    operator = reader = ""

    def __init__(self, world: World, primary: Serving, target: Path) -> None:
        self.world, self.primary, self.target = world, primary, target

    def run(self, surfing: Surfing) -> None:
        first, second, third = sorted(
            (self.target / "releases").iterdir(), key=lambda path: int(path.name.split("-")[0])
        )
        assert (self.link, self.content) == (third.name, "three\n")
        with surfing.person() as context:
            watched = surfing.watched(context, self.primary.http)
            page = watched.page
            page.goto(self.primary.http)
            log_in(page, self.operator)
            self.back(page, first.name, "it is slow")
            assert (self.link, self.content) == (first.name, "one\n")
            record = records(self.world.spec)[-1]
            assert (record.kind, record.by.split(" <")[0], record.reason) == (
                "node-rollback",
                "olga",
                "it is slow",
            )
            shown = self.card(page)
            shown.get_by_text("Rolled back").wait_for()  # by itself
            assert "olga" in shown.inner_text()
            assert "it is slow" in shown.inner_text()
            self.release(page, first.name).get_by_text("· current").wait_for()
            watched.shoot("node-rolled-back")

            # What is newer stays away, and from there another way back is offered.
            told = len(self.primary.lines)
            self.world.app.commit({"site/index.html": "four\n"})
            page.get_by_role("button", name="Look now").click()
            self.looked(told)
            assert (self.link, self.content) == (first.name, "one\n")
            self.back(page, second.name, "")
            assert (self.link, self.content) == (second.name, "two\n")

            told = len(self.primary.lines)
            self.card(page).get_by_role("button", name="Lift rollback of site on web-1").click()
            assert "node-unroll" in notice(page)
            self.applied(told)
            assert self.content == "four\n"
            self.card(page).get_by_text("Rolled back").wait_for(state="detached")
            watched.check()

        # Without scripts the same forms do it.
        with surfing.person(scripts=False, phone=True) as context:
            page = context.new_page()
            page.goto(self.primary.http)
            log_in(page, self.operator)
            self.back(page, second.name, "")
            assert (self.link, self.content) == (second.name, "two\n")

        # Who may only look sees where the node is, and no way elsewhere.
        with surfing.person() as context:
            watched = surfing.watched(context, self.primary.http)
            watched.page.goto(self.primary.http)
            log_in(watched.page, self.reader)
            self.card(watched.page).get_by_text("Rolled back").wait_for()
            assert self.card(watched.page).get_by_text("Roll back…").count() == 0
            assert self.card(watched.page).get_by_role("button", name="Lift rollback").count() == 0
            watched.check()

    @property
    def link(self) -> str:
        return (self.target / "current").readlink().name

    @property
    def content(self) -> str:
        return (self.target / "current/index.html").read_text()

    def card(self, page: Page) -> Locator:
        """The node's, with its targets unfolded."""
        card = page.get_by_role("article", name="node web-1")
        targets = card.locator("details[id='targets:web-1']")
        targets.wait_for()
        if targets.get_attribute("open") is None:
            targets.locator("summary").first.click()
        return card

    def release(self, page: Page, name: str) -> Locator:
        releases = self.card(page).get_by_role("list", name=f"releases at {self.target}")
        return releases.get_by_role("listitem").filter(has_text=name)

    def back(self, page: Page, name: str, why: str) -> None:
        told = len(self.primary.lines)
        release = self.release(page, name)
        release.get_by_text("Roll back…").click()
        release.get_by_label("Why").fill(why)
        release.get_by_role("button", name="Roll back to main").click()
        assert "recorded" in notice(page)
        self.applied(told)

    def applied(self, told: int) -> None:
        async def wait() -> None:
            await self.primary.said("step applied", after=told, action="sync")

        trio.from_thread.run(wait)

    def looked(self, told: int) -> None:
        trio.from_thread.run(self.primary.looked, told)
