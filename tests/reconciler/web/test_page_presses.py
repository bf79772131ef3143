"""What changes on the page while something on it is pressed, in a real browser; the stream is scripted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.browsing import Surfing, needs_chromium, surf
from tests.reconciler.web.page_facts import facts
from tests.reconciler.web.test_page_in_browser import served

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCRIPT = """
window.clicked = [];
window.EventSource = class {
  constructor() { window.heard = {}; }
  addEventListener(type, listener) { window.heard[type] = listener; }
};
window.comes = (html) => window.heard.section({ data: JSON.stringify(html) });
addEventListener("click", (event) => clicked.push(event.target.textContent), true);
window.version = (name) =>
  `<section id="trial" data-digest="${name}"><button id="press">${name}</button></section>`;
window.shown = () => document.getElementById("trial").dataset.digest;
window.pointer = (type, more) => document.querySelector("#trial button").dispatchEvent(
  new PointerEvent(type, { bubbles: true, pointerId: 7, pointerType: "touch", ...more }));
window.task = () => new Promise((done) => setTimeout(done));
addEventListener("DOMContentLoaded", () => {
  document.querySelector("main").insertAdjacentHTML("afterbegin", version("first"));
});
"""
"""Names for what the tests do in the page: it takes no script of its own but `live.js`."""


async def pressing(work: Callable[[Page], None]) -> None:
    """`work` on a page that shows the first version of a section with a button."""
    with served({"/": facts()}) as origin:

        def look(surfing: Surfing) -> None:
            with surfing.person() as context:
                page = context.new_page()
                page.add_init_script(SCRIPT)
                page.goto(origin)
                # Going to the page is over with its last task, which may take the focus.
                page.evaluate("new Promise((done) => setTimeout(done, 60))")
                work(page)

        await surf(look)


@needs_chromium
async def test_what_comes_after_the_release_is_not_replaced_by_what_was_held() -> None:
    def work(page: Page) -> None:
        seen = page.evaluate(
            """async () => {
                pointer("pointerdown", { pointerType: "mouse" });
                comes(version("held"));
                pointer("pointerup", { pointerType: "mouse" });
                comes(version("newest"));
                await task();
                return shown();
            }"""
        )
        assert seen == "newest"

    await pressing(work)


@needs_chromium
async def test_a_headline_that_changes_during_a_press_is_said() -> None:
    def work(page: Page) -> None:
        page.mouse.move(5, 300)
        page.mouse.down()
        overview = '<section id="overview" data-digest="x"><h1 id="headline">On fire</h1></section>'
        page.evaluate("(html) => comes(html)", overview)
        assert page.locator("#told").text_content() == ""
        page.mouse.up()
        page.locator("#told", has_text="On fire").wait_for(state="attached")

    await pressing(work)


@needs_chromium
async def test_a_finger_has_its_click_before_anything_is_replaced() -> None:
    def work(page: Page) -> None:
        seen = page.evaluate(
            """async () => {
                const seen = [];
                pointer("pointerdown");
                comes(version("second"));
                pointer("pointerup");
                await task();
                seen.push(shown());
                pointer("click");
                await task();
                seen.push(shown());
                // One that becomes a scroll gets no click.
                pointer("pointerdown");
                comes(version("third"));
                pointer("pointercancel");
                await task();
                seen.push(shown());
                return seen;
            }"""
        )
        assert seen == ["first", "second", "third"]
        # Nor has one that was held for long.
        page.evaluate("pointer('pointerdown'); comes(version('fourth')); pointer('pointerup');")
        page.locator("#trial[data-digest=fourth]").wait_for()

    await pressing(work)


@needs_chromium
async def test_one_finger_that_is_lifted_does_not_release_another() -> None:
    def work(page: Page) -> None:
        seen = page.evaluate(
            """async () => {
                const seen = [];
                pointer("pointerdown");
                pointer("pointerdown", { pointerId: 8 });
                comes(version("second"));
                pointer("pointercancel", { pointerId: 8 });
                await task();
                seen.push(shown());
                pointer("pointercancel");
                await task();
                seen.push(shown());
                return seen;
            }"""
        )
        assert seen == ["first", "second"]

    await pressing(work)


@needs_chromium
async def test_a_press_of_the_space_bar_keeps_its_click() -> None:
    def work(page: Page) -> None:
        page.locator("#press").focus()
        page.keyboard.down(" ")
        page.evaluate("comes(version('second'))")
        assert page.evaluate("shown()") == "first"
        page.keyboard.up(" ")
        page.locator("#trial[data-digest=second]").wait_for()
        assert page.evaluate("clicked") == ["first"]
        assert page.evaluate("document.activeElement.id") == "press"

    await pressing(work)


@needs_chromium
async def test_a_release_that_is_never_told_of_holds_nothing_for_ever() -> None:
    def work(page: Page) -> None:
        page.evaluate("pointer('pointerdown', { pointerType: 'mouse', buttons: 1 })")
        page.evaluate("comes(version('second'))")
        page.evaluate("pointer('pointermove', { pointerType: 'mouse', buttons: 1 })")
        assert page.evaluate("task().then(shown)") == "first"
        page.evaluate("pointer('pointermove', { pointerType: 'mouse', buttons: 0 })")
        page.locator("#trial[data-digest=second]").wait_for()

    await pressing(work)
