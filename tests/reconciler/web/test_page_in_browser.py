"""Hostile names, narrow screens and dark ones, in a real browser; the page is rendered from made-up facts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from markupsafe import Markup

from reconciler.web.page.facts import Facts
from reconciler.web.page.origin import HEADERS
from reconciler.web.page.render import TITLES, render, sections
from reconciler.web.page.site import MEDIA, static_file
from reconciler.web.page.stream import event
from reconciler.web.page.view import page_of
from tests.browsing import Surfing, needs_chromium, surf
from tests.reconciler.web.page_facts import facts, many_services
from tests.reconciler.web.test_page_view import ALL, HOSTILE, endless, hostile_names


def html_page(given: Facts) -> str:
    shown = [Markup(each.for_session("csrf")) for each in sections(page_of(given), ALL)]
    return render(
        "page.html", titles=TITLES, sections=shown, messages=[], me="ann", role="operate", csrf="csrf"
    )


class Pages(BaseHTTPRequestHandler):
    """Two pages, and a stream that sends the sections of the hostile one."""

    pages: dict[str, Facts]

    def do_GET(self) -> None:
        if self.path == "/page/stream":
            hostile = sections(page_of(self.pages["/hostile"]), ALL)
            body, media = b"".join(event(each, "csrf") for each in hostile), "text/event-stream"
        elif self.path in self.pages:
            body, media = html_page(self.pages[self.path]).encode(), "text/html; charset=utf-8"
        else:
            name = self.path.removeprefix("/page/")
            body, media = static_file(name)[0], MEDIA[name]
        self.send_response(200)
        for key, value in HEADERS.items():
            self.send_header(key, value)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def served(pages: dict[str, Facts]) -> Iterator[str]:
    handler = type("Handler", (Pages,), {"pages": pages})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@needs_chromium
async def test_hostile_names_and_small_screens() -> None:
    hostile = facts(hostile_names(endless(HOSTILE)))
    with served({"/": facts(), "/empty": Facts(), "/hostile": hostile}) as origin:

        def look(surfing: Surfing) -> None:
            for phone in (False, True):
                _look(surfing, origin, "light", phone=phone)
                _look(surfing, origin, "dark", phone=phone)

        await surf(look)


def _look(surfing: Surfing, origin: str, scheme: Literal["light", "dark"], *, phone: bool) -> None:
    where = f"{scheme}-{'phone' if phone else 'desk'}"
    with surfing.person(scheme=scheme, phone=phone) as context:
        for path in ("/hostile", "/"):
            watched = surfing.watched(context, origin)
            page = watched.page
            page.goto(origin + path)
            # The stream brings the hostile sections to whatever page it was: as text too.
            page.get_by_text(HOSTILE[1]).first.wait_for(state="attached")
            page.locator("details").evaluate_all("(all) => all.forEach((each) => { each.open = true; })")
            watched.fits()
            watched.check()
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert ground == ("rgb(15, 19, 24)" if scheme == "dark" else "rgb(245, 246, 248)")
            watched.shoot(f"hostile-{where}")
            page.close()
    with surfing.person(scheme=scheme, phone=phone, scripts=False) as context:
        for path, name in (("/", "world"), ("/empty", "new")):
            watched = surfing.watched(context, origin)
            watched.page.goto(origin + path)
            watched.shoot(f"{name}-{where}")
            watched.check()


@needs_chromium
async def test_many_services_are_narrowed_down_by_keyboard() -> None:
    """What is typed stays in force when the section changes, and how much is shown is said."""
    with served({"/": many_services(400), "/hostile": many_services(401)}) as origin:

        def look(surfing: Surfing) -> None:
            with surfing.person() as context:
                watched = surfing.watched(context, origin)
                page = watched.page
                page.goto(origin)
                services = page.locator("section#services")
                rows = services.locator("tbody tr:visible")
                services.get_by_text("service-400").wait_for()  # the stream's own, by itself
                assert rows.count() == 401
                search = services.get_by_role("searchbox", name="Find")
                search.focus()
                page.keyboard.type("service-31")
                assert rows.count() == 10
                said = services.get_by_role("status")
                assert said.inner_text() == "10 of 401"
                services.get_by_label("Show").select_option("bad")
                assert rows.count() == 1
                assert "service-310" in rows.inner_text()
                search.fill("staging")
                assert rows.count() == 41
                # Another version of the section comes: what was asked for stays.
                page.evaluate(
                    """() => {
                        const section = document.getElementById("services");
                        section.dataset.digest = "older";
                        swap(section.outerHTML.replace('data-digest="older"', 'data-digest="newer"')
                            .replaceAll(" hidden", ""));
                    }"""
                )
                assert rows.count() == 41
                assert search.input_value() == "staging"
                # Nor does what was pressed lose its click to a version that comes before it is released.
                entry = services.locator("details:visible").first
                assert entry.get_attribute("open") is None
                entry.locator("summary").hover()
                page.mouse.down()
                page.evaluate(
                    """() => {
                        const section = document.getElementById("services");
                        section.dataset.newest = "no";
                        swap(section.outerHTML.replace('data-newest="no"', 'data-newest="yes"')
                            .replace('data-digest="newer"', 'data-digest="newest"'));
                    }"""
                )
                assert services.get_attribute("data-newest") == "no"
                page.mouse.up()
                page.locator("section#services[data-newest=yes]").wait_for()
                assert services.locator("details:visible").first.get_attribute("open") is not None
                watched.shoot("many-services")
                watched.check()

        await surf(look)
