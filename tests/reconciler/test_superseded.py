"""What moves in git while a service's health is waited for, and what of it counts."""

from collections.abc import Mapping

import pytest
import trio
import trio.testing

from reconciler.errors import GitUnavailable
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.spec.model import Spec
from reconciler.superseded import INTERVAL, Calls, Newer

SPEC = """\
version: 1
repositories:
  app: {url: "https://git.example/app.git", units: {web: {paths: ["web/**"]}, api: {paths: ["api/**"]}}}
environments:
  staging: {release: {from: main}}
  tagged: {release: {from: main, cut: external}}
  production: {release: {promote_from: staging}}
  kept: {release: {promote_from: staging}, spec_from: release}
services:
  web:
    repository: app
    paths: ["web/**"]
    deploy: {kind: invoke, task: t}
    environments: [staging, tagged, production, kept]
"""
SPEC_URL, APP_URL = "https://git.example/spec.git", "https://git.example/app.git"
OLD, NEW = "a" * 40, "b" * 40


class FakeGit:
    """Two repositories that the pass has seen, and what they have now."""

    def __init__(self) -> None:
        self.before = {
            SPEC_URL: {"refs/heads/main": OLD, "refs/heads/trueup/control": OLD},
            APP_URL: {"refs/heads/main": OLD, "refs/tags/web/v1.0.0": OLD},
        }
        self.now = {url: dict(refs) for url, refs in self.before.items()}
        self.own: dict[str, str] = {}
        self.looks: list[str] = []
        self.down = False

    def seen(self, url: str) -> Mapping[str, str] | None:
        return self.before.get(url)

    def pushed(self, url: str) -> Mapping[str, str]:
        return self.own if url == APP_URL else {}

    async def ask(self, url: str) -> Mapping[str, str]:
        await trio.lowlevel.checkpoint()
        self.looks.append(url)
        if self.down:
            raise GitUnavailable("down")
        return dict(self.now[url])


def spec() -> Spec:
    return load_or_raise({SPEC_FILE: SPEC.encode()})


def newer(git: FakeGit, calls: Calls) -> Newer:
    return Newer(spec(), SPEC_URL, "main", git, calls)


async def told(git: FakeGit, environment: str, calls: Calls | None = None) -> str | None:
    """What ends a wait of 100 seconds; None: nothing does."""
    [service] = [each for each in spec().services if each.environment == environment]
    with trio.move_on_after(100):
        return await newer(git, calls or Calls()).wait(service)
    return None


MOVES = [
    # url, ref, value; the environments whose wait ends
    (SPEC_URL, "refs/heads/main", {"staging", "tagged", "production"}),
    (SPEC_URL, "refs/heads/trueup/control", {"staging", "tagged", "production", "kept"}),
    (SPEC_URL, "refs/heads/trueup/status", set()),
    (SPEC_URL, "refs/heads/other", set()),
    (APP_URL, "refs/heads/main", {"staging"}),
    (APP_URL, "refs/heads/other", set()),
    (APP_URL, "refs/tags/web/v1.0.1", {"staging", "tagged"}),
    (APP_URL, "refs/tags/web/v1.0.0", {"staging", "tagged"}),
    (APP_URL, "refs/tags/api/v9.0.0", set()),
]


@pytest.mark.parametrize(("url", "ref", "concerned"), MOVES)
async def test_a_move_ends_the_waits_that_it_may_concern(
    autojump_clock: trio.testing.MockClock, url: str, ref: str, concerned: set[str]
) -> None:
    for environment in ("staging", "tagged", "production", "kept"):
        git = FakeGit()
        git.now[url][ref] = NEW
        assert (await told(git, environment) is not None) == (environment in concerned), environment


async def test_a_tag_of_our_own_and_a_ref_that_went_are_no_news(
    autojump_clock: trio.testing.MockClock,
) -> None:
    git = FakeGit()
    git.now[APP_URL]["refs/tags/web/v1.0.1"] = git.own["refs/tags/web/v1.0.1"] = NEW
    del git.now[APP_URL]["refs/tags/web/v1.0.0"]
    assert await told(git, "staging") is None
    git.now[APP_URL]["refs/tags/web/v1.0.2"] = NEW
    assert await told(git, "staging") == "tags/web/v1.0.2"


async def test_what_cannot_be_asked_has_not_moved(autojump_clock: trio.testing.MockClock) -> None:
    git = FakeGit()
    git.now[SPEC_URL]["refs/heads/main"] = NEW
    git.down = True
    assert await told(git, "staging") is None
    git.down = False
    assert await told(git, "staging") == "main"


async def test_a_repository_that_the_pass_did_not_see_is_not_judged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    git = FakeGit()
    del git.before[APP_URL]
    git.now[APP_URL]["refs/heads/main"] = NEW
    assert await told(git, "staging") is None


async def test_whoever_says_look_now_is_heard_at_once(autojump_clock: trio.testing.MockClock) -> None:
    git, calls = FakeGit(), Calls()
    found: list[str | None] = []

    async def wait() -> None:
        found.append(await told(git, "staging", calls))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(1)
        git.now[SPEC_URL]["refs/heads/main"] = NEW
        calls.call()
    assert found == ["main"]
    assert trio.current_time() == 1


async def test_one_look_serves_all_who_wait(autojump_clock: trio.testing.MockClock) -> None:
    git, calls = FakeGit(), Calls()
    watch = newer(git, calls)
    [service] = [each for each in spec().services if each.environment == "staging"]
    with trio.move_on_after(INTERVAL * 3.5):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(watch.wait, service)
    assert sorted(git.looks) == sorted([SPEC_URL, APP_URL] * 4)
