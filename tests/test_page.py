"""The page of a real primary in a real browser: logging in, seeing, pressing, being attacked."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import trio

from tests.browsing import Surfing, needs_chromium, surf
from tests.serving import Serving, serving
from tests.world import World, make_world

if TYPE_CHECKING:
    from playwright.sync_api import Page

EVIL = "<img src=x onerror=alert(1)>"

SPEC = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
environments:
  staging:
    release: {{from: main, cut: external}}
  production:
    release: {{promote_from: staging, approval: manual}}
secret_sources:
  local: {{kind: environ, keys: [COLOUR]}}
services:
  web:
    repository: app
    paths: ["web/**"]
    secrets: [local]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging, production]
nodes:
  web-1: {{name: "{evil}", labels: {{group: "{evil}"}}, token_key: "{key}"}}
projects:
  site:
    name: "{evil}"
    repository: app
    branch: main
    path: web
    sync: {{nodes: [{{node_id: web-1, target_path: /srv/site}}]}}
"""

TASKS = """\
import os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    with (Path({root!r}) / os.environ["TRUEUP_ENVIRONMENT"]).open("a") as log:
        log.write(os.environ["TRUEUP_TAG"] + "\\n")
"""

KEY = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def fill(world: World) -> None:
    world.environment |= {"TRUEUP_INTERVAL": "24h", "COLOUR": "green"}
    world.app.commit({"tasks.py": TASKS.format(root=str(world.deployed)), "web/index.html": "one\n"})
    world.app.tag("v1.0.0")
    world.commit_spec(SPEC.format(app=world.app.url, evil=EVIL, key=KEY))


async def token_of(world: World, tokens: Path, name: str, role: str) -> str:
    made = await world.trueup("token", "new", name, "--role", role, TRUEUP_API_TOKENS_FILE=str(tokens))
    return made.stdout.strip()


def without(tokens: Path, name: str) -> None:
    lines = [line for line in tokens.read_text().splitlines() if not line.startswith(f"{name} ")]
    tokens.write_text("\n".join(lines) + "\n")


class Elsewhere:
    """A site of somebody else, which sends whoever looks at it to ours."""

    def __init__(self, body: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Elsewhere:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def log_in(page: Page, token: str) -> None:
    page.get_by_label("API token").fill(token)
    page.get_by_role("button", name="Log in").click()


def notice(page: Page) -> str:
    """What the page says of the button that was pressed last."""
    return page.locator("main > p.notice[role=status]").inner_text()


def section(page: Page, id: str) -> Any:
    return page.locator(f"section#{id}")


@needs_chromium
async def test_the_page(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world)
        tokens = tmp_path / "tokens"
        tokens.write_text("")
        tokens.chmod(0o600)
        async with serving(world, TRUEUP_API_TOKENS_FILE=str(tokens)) as primary:
            await primary.said("pass ended")
            trying = _Trying(world, primary, tokens)
            await surf(trying.run)
            assert await primary.end() == 0
        said = json.dumps(primary.lines)
        journal = b"".join(path.read_bytes() for path in world.state.glob("journal.sqlite*"))
        for token in trying.tokens:
            assert token not in said
            assert token.encode() not in journal


class _Trying:
    """What people try, one after the other, with the same primary. Runs in the browser's thread."""

    def __init__(self, world: World, primary: Serving, file: Path) -> None:
        self.world, self.primary, self.file = world, primary, file
        self.origin = primary.http
        self.tokens: list[str] = []

    def run(self, surfing: Surfing) -> None:
        self.surfing = surfing
        for part in (
            self.nobody_can_log_in_without_a_token,
            self.who_may_only_read,
            self.who_operates,
            self.who_decides,
            self.who_changes_the_spec,
            self.without_scripts,
            self.from_elsewhere,
            self.a_token_is_taken_back,
        ):
            part()

    def token(self, name: str, role: str) -> str:
        token = trio.from_thread.run(token_of, self.world, self.file, name, role)
        self.tokens.append(token)
        return token

    def nobody_can_log_in_without_a_token(self) -> None:
        with self.surfing.person() as context:
            watched = self.surfing.watched(context, self.origin)
            page = watched.page
            answered = page.goto(self.origin)
            assert answered is not None
            policy = answered.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert answered.headers["x-content-type-options"] == "nosniff"
            assert answered.headers["cache-control"] == "no-store"
            assert "trueup token new NAME --role operate" in page.locator("main").inner_text()
            watched.shoot("no-tokens")

            self.reader, self.operator = self.token("rita", "read"), self.token("olga", "operate")
            page.get_by_role("link", name="load this page again").click()
            page.locator("#token:focus").wait_for()  # the browser gives it the focus once all is drawn
            watched.shoot("login")
            watched.check()
            log_in(page, "trueup_" + "0" * 64)
            assert "not known" in page.get_by_role("alert").inner_text()
            assert context.cookies() == []
            # Chromium tells of the 401 on the console.
            assert all("401" in each for each in watched.wrong)

    def who_may_only_read(self) -> None:
        with self.surfing.person(scheme="dark") as context:
            watched = self.surfing.watched(context, self.origin)
            page = watched.page
            page.goto(self.origin)
            log_in(page, self.reader)
            assert "rita, read" in page.locator("header").first.inner_text()
            [cookie] = context.cookies()
            assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
            assert self.reader not in cookie["value"]
            web = section(page, "services").get_by_role("row", name=re.compile("web")).first
            assert "v1.0.0" in web.inner_text()
            assert section(page, "nodes").inner_text().count(EVIL) == 2  # text, and nothing else
            assert section(page, "projects").inner_text().count(EVIL) == 1
            assert page.locator("main button").count() == 0
            watched.shoot("reader-dark")
            watched.check()
            # What has no button is not done either: the role is judged where it happens.
            csrf = page.locator("input[name=csrf]").first.input_value()
            told = page.evaluate(
                """async (csrf) => {
                    const answered = await fetch("/page/do", {method: "POST", redirect: "manual",
                        body: new URLSearchParams({csrf, do: "reconcile"})});
                    return answered.type;
                }""",
                csrf,
            )
            assert told == "opaqueredirect"
            page.goto(self.origin)
            assert "role operate" in notice(page)
            asked = [line for line in self.primary.lines if line.get("event") == "a pass was asked for"]
            assert asked == []

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
        assert page.evaluate("document.activeElement.id") == "main"
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

    async def ask_for_a_pass(self) -> None:
        assert (await self.primary.ask_locally("POST", "/api/reconcile")).status_code == 202

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

    def without_scripts(self) -> None:
        with self.surfing.person(scripts=False) as context:
            page = context.new_page()
            page.goto(self.origin)
            log_in(page, self.operator)
            assert "v1.1.0" in section(page, "services").inner_text()
            told = len(self.primary.lines)
            page.get_by_role("button", name="Look now").click()
            assert "A pass was asked for" in notice(page)
            trio.from_thread.run(self.said, "a button was pressed", told)

    async def said(self, event: str, after: int) -> None:
        await self.primary.said(event, after=after)

    def from_elsewhere(self) -> None:
        """Another site, of the same host, so that even the strictest cookie goes along."""
        target = f"{self.origin}/page/do"
        body = f"""<form method="post" action="{target}"><input name="do" value="reconcile">
            <input name="csrf" value="x"><button>win</button></form><iframe src="{self.origin}/"></iframe>"""
        with Elsewhere(body) as elsewhere, self.surfing.person() as context:
            page = context.new_page()
            page.goto(self.origin)
            log_in(page, self.operator)
            page.locator("#headline").wait_for()
            told = len(self.primary.lines)
            page.goto(elsewhere.url)
            frame = page.frames[1]
            assert "trueup" not in frame.locator("body").inner_text()
            page.get_by_role("button", name="win").click()
            assert "only forms of this page" in page.get_by_role("alert").inner_text()
            events = [line.get("event") for line in self.primary.lines[told:]]
            assert "a pass was asked for" not in events

    def a_token_is_taken_back(self) -> None:
        with self.surfing.person() as context:
            watched = self.surfing.watched(context, self.origin)
            page = watched.page
            page.goto(self.origin)
            log_in(page, self.operator)
            page.get_by_text("live", exact=True).wait_for()
            without(self.file, "olga")
            trio.from_thread.run(self.ask_for_a_pass)
            page.get_by_label("API token").wait_for()  # by itself
            watched.check()
            log_in(page, self.operator)
            assert "not known" in page.get_by_role("alert").inner_text()
