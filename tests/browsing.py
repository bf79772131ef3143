"""A real browser for tests of the page: Debian's Chromium, driven by Playwright in a thread of its own.

What a page must never do is listened for: dialogs, errors and warnings on the console, violations of the
content security policy, requests to anywhere else. And what every such test needs: a token, the way in, and
where the page says things.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pytest
import trio

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

    from tests.world import World

T = TypeVar("T")

CHROMIUM = shutil.which("chromium")
SCREENSHOTS = Path(__file__).parent.parent / "build" / "screenshots"

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
PATIENCE = 120_000
"""Milliseconds; only a hang gets there."""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

PHONE = {"width": 375, "height": 812}
DESK = {"width": 1280, "height": 900}


@dataclass
class Watched:
    """A page and what it did that it must not."""

    page: Page
    wrong: list[str] = field(default_factory=list)

    def check(self) -> None:
        assert self.wrong == []

    def fits(self) -> None:
        """Nothing is wider than the screen."""
        wide = self.page.evaluate(
            "() => [...document.querySelectorAll('body *')].filter((each) => {"
            " const box = each.getBoundingClientRect();"
            " return box.right > innerWidth + 1 && !each.closest('nav, pre, .hidden, .skip'); })"
            ".map((each) => each.outerHTML.slice(0, 120))"
        )
        assert wide == []
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def shoot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@dataclass
class Surfing:
    """A browser; each context is a person with cookies of their own."""

    browser: Browser

    @contextmanager
    def person(
        self,
        *,
        scheme: Literal["light", "dark"] = "light",
        phone: bool = False,
        scripts: bool = True,
    ) -> Iterator[BrowserContext]:
        context = self.browser.new_context(
            color_scheme=scheme,
            viewport=PHONE if phone else DESK,  # type: ignore[arg-type]
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        context.set_default_timeout(PATIENCE)
        try:
            yield context
        except Exception:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            for number, page in enumerate(context.pages):
                page.screenshot(path=SCREENSHOTS / f"failed-{number}.png", full_page=True)
            raise
        finally:
            context.close()

    @staticmethod
    def watched(context: BrowserContext, origin: str) -> Watched:
        """A new page whose wrongs are listened for; all that it loads is of one origin."""
        watched = Watched(context.new_page())
        page, wrong = watched.page, watched.wrong

        def dialog(raised: Any) -> None:
            wrong.append(f"dialog: {raised.message}")
            raised.dismiss()

        page.on("dialog", dialog)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda said: wrong.append(f"{said.type}: {said.text}"))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(f"{origin}/") else wrong.append(f"asked {asked.url}"),
        )
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) =>"
            " console.error('policy', event.violatedDirective, event.blockedURI));"
        )
        return watched


async def surf(work: Callable[[Surfing], T]) -> T:
    """Let `work` use a browser. It runs in a thread: Playwright brings an event loop of its own."""
    return await trio.to_thread.run_sync(_surf, work, abandon_on_cancel=True)


def _surf(work: Callable[[Surfing], T]) -> T:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            return work(Surfing(browser))
        finally:
            browser.close()


async def token_of(world: World, tokens: Path, name: str, role: str) -> str:
    """A new API token for a person, as the command makes it in the file `tokens`."""
    made = await world.trueup("token", "new", name, "--role", role, TRUEUP_API_TOKENS_FILE=str(tokens))
    return made.stdout.strip()


def log_in(page: Page, token: str) -> None:
    page.get_by_label("API token").fill(token)
    page.get_by_role("button", name="Log in").click()


def notice(page: Page) -> str:
    """What the page says of the button that was pressed last."""
    return page.locator("main > p.notice[role=status]").inner_text()


def section(page: Page, id: str) -> Locator:
    return page.locator(f"section#{id}")
