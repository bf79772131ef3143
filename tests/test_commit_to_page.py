"""A commit's whole way: pushed to a remote, told of by GitHub, placed by two agents, seen in a browser."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from tests.browsing import Surfing, needs_chromium, surf
from tests.canaries import canary
from tests.githttps import git_over_https
from tests.github_deliveries import BRANCH, REPOSITORY, headers_of, payload, synced
from tests.gitrepo import GitRepo, git
from tests.serving import Serving, serving
from tests.world import Host, Relay, World, make_world, tree_of

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

WEBHOOK_SECRET = canary("github-webhook-secret-of-a-page")


class Author:
    """Somebody with a clone, who commits and pushes as people do."""

    def __init__(self, url: str, clone: Path, certificate: Path) -> None:
        self._git = functools.partial(git, env={"GIT_SSL_CAINFO": str(certificate)})
        self._clone = clone
        self._git("clone", "-q", url, str(clone))
        self._git("switch", "-q", "-C", BRANCH, cwd=clone)

    def push(self, files: dict[str, str]) -> str:
        """The commit's id."""
        for name, text in files.items():
            path = self._clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self._git("add", "-A", cwd=self._clone)
        self._git("commit", "-q", "-m", "A change", cwd=self._clone)
        self._git("push", "-q", "origin", BRANCH, cwd=self._clone)
        return self._git("rev-parse", "HEAD", cwd=self._clone)

    @property
    def tree(self) -> Path:
        return self._clone / "site"


async def token_of(world: World, tokens: Path) -> str:
    made = await world.trueup("token", "new", "rita", "--role", "read", TRUEUP_API_TOKENS_FILE=str(tokens))
    return made.stdout.strip()


async def add_hosts(world: World, relay: Relay, url: str) -> list[Host]:
    hosts = [await world.add_host(node, relay.address) for node in ("web-1", "web-2")]
    nodes = world.spec.read("trueup.yaml").decode().partition("nodes:\n")[2]
    world.commit_spec(synced(url, hosts, nodes))
    return hosts


def applied(primary: Serving, number: int) -> dict[str, Any] | None:
    """The last of so many steps that ended well."""
    lines = [line for line in primary.lines if line.get("event") == "step applied"]
    return lines[number - 1] if len(lines) >= number else None


async def deliver(primary: Serving, event: str, body: bytes) -> None:
    answered = await primary.ask(
        "POST", "/webhook", content=body, headers=headers_of(body, WEBHOOK_SECRET, event)
    )
    assert answered.status_code == 202, answered.text


@needs_chromium
async def test_a_pushed_commit_reaches_two_hosts_and_the_page(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        with git_over_https(tmp_path, tmp_path) as forge:
            GitRepo.create(tmp_path / f"{REPOSITORY}.git")
            url = f"{forge.url}/{REPOSITORY}.git"
            del world.environment["TRUEUP_ALLOW_LOCAL_REPOS"]
            world.environment |= {
                "TRUEUP_SPEC_REPO": f"{forge.url}/spec.git",
                "GIT_SSL_CAINFO": str(forge.certificate),
                "WEBHOOK_SECRET": WEBHOOK_SECRET,
                "TRUEUP_INTERVAL": "24h",
            }
            author = Author(url, tmp_path / "clone", forge.certificate)
            first = author.push({"site/index.html": "one\n", "site/about/us.html": "us\n"})
            world.commit_spec("version: 1\n")
            hosts = await add_hosts(world, relay, url)
            tokens = tmp_path / "tokens"
            tokens.write_text("")
            tokens.chmod(0o600)
            async with serving(world, TRUEUP_API_TOKENS_FILE=str(tokens)) as primary:
                for host in hosts:
                    await world.start_agent(host)
                await primary.until(functools.partial(applied, primary, len(hosts)), "a step for each host")
                token = await token_of(world, tokens)
                watching = _Watching(primary, author, hosts, token, first)
                await surf(watching.run)
                assert await primary.end() == 0


class _Watching:
    """A page that is open while somebody pushes. Runs in the browser's thread."""

    def __init__(self, primary: Serving, author: Author, hosts: list[Host], token: str, first: str) -> None:
        self.primary, self.author, self.hosts = primary, author, hosts
        self.token, self.first = token, first

    def run(self, surfing: Surfing) -> None:
        with surfing.person() as context:
            watched = surfing.watched(context, self.primary.http)
            page = watched.page
            page.goto(self.primary.http)
            page.get_by_label("API token").fill(self.token)
            page.get_by_role("button", name="Log in").click()
            page.get_by_text("live", exact=True).wait_for()
            for host in self.hosts:
                self.article(page, host).get_by_text("1 target").click()  # and what was opened stays so
                self.shown(page, host, self.first).wait_for()
            page.evaluate("window.mark = 'no other page was loaded'")
            # What changes nothing comes first: the page and the hosts stay as they are.
            trio.from_thread.run(deliver, self.primary, "ping", payload("ping"))

            second = self.author.push({"site/index.html": "two\n", "site/new.html": "new\n"})
            assert self.shown(page, self.hosts[0], second).count() == 0
            body = payload("push", before=self.first, after=second)
            trio.from_thread.run(deliver, self.primary, "push", body)
            for host in self.hosts:
                self.shown(page, host, second).wait_for()
                assert self.shown(page, host, self.first).count() == 0
                assert tree_of(host.srv / "site") == tree_of(self.author.tree)
            assert page.evaluate("window.mark") == "no other page was loaded"
            watched.shoot("commit-to-page")
            watched.check()

    @staticmethod
    def article(page: Page, host: Host) -> Locator:
        return page.get_by_role("article", name=f"node {host.node}")

    def shown(self, page: Page, host: Host, commit: str) -> Locator:
        """Where the page says that a host has this commit."""
        return self.article(page, host).get_by_text(f"{BRANCH} {commit[:10]}")
