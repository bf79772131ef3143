"""The page of a real primary in a real browser: who gets in, who may only read, and who is kept out."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import trio

from tests.browsing import Surfing, log_in, needs_chromium, notice, section, surf
from tests.operating import EVIL, Operating
from tests.serving import serving
from tests.specs import STAGING
from tests.world import World, make_world

SPEC = (
    STAGING
    + """\
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
)

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


class _Trying(Operating):
    """What people try, one after the other, with the same primary."""

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
