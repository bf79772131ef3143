"""Making release tags in real repositories: no number twice, none lost, whoever else makes tags meanwhile."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from reconciler.errors import GitRefused, GitUnavailable
from reconciler.git.mirror import Mirror
from reconciler.release.cut import cut_release
from reconciler.release.facts import Next, UnitFacts
from reconciler.release.numbers import made_before, next_tag
from reconciler.spec.model import Environment, Unit
from tests.gitrepo import GitRepo

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
UNIT = Unit(name="app", repository="app")
ROUNDS = 200


async def accepted(_name: str, _oid: str) -> None:
    """A repository that asks for no signatures."""


@dataclass
class Reconciler:
    """One of several that look after the same repository, each with a mirror of its own."""

    mirror: Mirror
    environment: str
    recorded: set[str] = field(default_factory=set)
    """Tags that the status files know."""

    def facts(self) -> UnitFacts:
        return UnitFacts(UNIT, Environment(name=self.environment), (), recorded_tags=frozenset(self.recorded))

    async def planned(self, commit: str, decision: int = 1) -> Next:
        """What a pass plans from the tags that its mirror has."""
        tags, spec = await self.mirror.tags(), "5" * 40
        release = Next("promotion", "", commit, spec, True, triggered_by="a test", decision=decision)
        if (made := made_before(self.facts(), tags, release)) is not None:
            return replace(release, tag=made.name, cut=False)
        return replace(release, tag=next_tag(self.facts(), tags, "patch"))

    async def cut(self, release: Next) -> str:
        return await cut_release(
            self.mirror,
            self.facts(),
            release,
            spec_branch="main",
            now=NOW,
            signing_key=None,
            check=accepted,
        )


@pytest.fixture
def remote(tmp_path: Path) -> GitRepo:
    return GitRepo.create(tmp_path / "app.git")


@pytest.fixture
def two(tmp_path: Path, remote: GitRepo) -> list[Reconciler]:
    return [
        Reconciler(Mirror(remote.url, tmp_path / name / "app.git", allow_local=True), name)
        for name in ("staging", "production")
    ]


def commits(remote: GitRepo, count: int) -> list[str]:
    """So many commits on main, the oldest first, made in one go."""
    lines = []
    for number in range(count):
        text = f"change {number}"
        lines.append(f"commit refs/heads/main\ncommitter A <a@example.org> {1_700_000_000 + number} +0000\n")
        lines.append(f"data {len(text)}\n{text}\nM 100644 inline file\ndata {len(text)}\n{text}\n")
    remote.git("fast-import", "--quiet", stdin="".join(lines).encode())
    return remote.log()[::-1]


def tags_of(remote: GitRepo) -> dict[str, tuple[str, str, str]]:
    """Each tag with its commit, and the environment and decision that it names."""
    form = "--format=%(refname:strip=2) %(*objectname)%0a%(contents:trailers:only)%00"
    found = {}
    for text in remote.git("for-each-ref", form, "refs/tags").split("\0")[:-1]:
        head, *lines = text.strip().splitlines()
        name, commit = head.split()
        said = dict(line.split(": ", 1) for line in lines)
        found[name] = (commit, said["Environment"], said["Decision"])
    return found


async def cut_into(results: list[str], index: int, reconciler: Reconciler, release: Next) -> None:
    results[index] = await reconciler.cut(release)


async def test_two_that_cut_at_once_never_take_the_same_number_and_lose_none(
    remote: GitRepo, two: list[Reconciler]
) -> None:
    history = commits(remote, ROUNDS)
    for each in two:
        await each.mirror.refresh()
    made: dict[str, tuple[str, str, str]] = {}
    for number in range(ROUNDS):
        # Every fourth time both make the very same release, as two primaries of one installation would.
        same = number % 4 == 3
        pair = [two[0], Reconciler(two[1].mirror, "staging", two[0].recorded)] if same else two
        wanted = [history[number], history[number] if same else history[-1 - number]]
        planned = [await each.planned(wanted[index], number + 1) for index, each in enumerate(pair)]
        assert all(each.cut for each in planned)
        results = ["", ""]
        async with trio.open_nursery() as nursery:
            for index in (0, 1):
                nursery.start_soon(cut_into, results, index, pair[index], planned[index])
        assert (results[0] == results[1]) is same
        for index, tag in enumerate(results[:1] if same else results):
            assert tag not in made
            made[tag] = (wanted[index], pair[index].environment, str(number + 1))
            pair[index].recorded.add(tag)
    assert tags_of(remote) == made
    # Nobody else made tags, so there is not a gap either.
    assert set(made) == {"v0.1.0", *(f"v0.1.{number}" for number in range(1, len(made)))}


def hook(remote: GitRepo, name: str, script: str) -> Path:
    path = remote.path / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


async def test_a_number_that_somebody_elses_tag_took_meanwhile_is_left_to_it(
    remote: GitRepo, two: list[Reconciler]
) -> None:
    [first, second] = commits(remote, 2)
    await two[0].mirror.refresh()
    planned = await two[0].planned(second)
    theirs = {name: remote.tag(name, first, message=None) for name in ("v0.1.0", "v0.4.0-rc.1", "0.2.0")}
    assert planned.tag == "v0.1.0"
    assert await two[0].cut(planned) == "v0.4.1"
    tags = {ref: oid for ref, oid in remote.refs().items() if ref.startswith("refs/tags/")}
    mine = tags.pop("refs/tags/v0.4.1")
    assert tags == {f"refs/tags/{name}": oid for name, oid in theirs.items()}
    assert remote.resolve(f"{mine}^{{commit}}") == second


async def test_a_number_that_only_a_status_file_remembers_is_not_given_again(
    remote: GitRepo, two: list[Reconciler]
) -> None:
    [commit] = commits(remote, 1)
    await two[0].mirror.refresh()
    two[0].recorded |= {"v0.7.3", "other/v9.0.0"}  # of a tag that was deleted, and of another unit
    assert await two[0].cut(await two[0].planned(commit)) == "v0.7.4"


async def test_a_tag_that_the_server_refuses_is_an_error_in_its_words(
    remote: GitRepo, two: list[Reconciler]
) -> None:
    [commit] = commits(remote, 1)
    await two[0].mirror.refresh()
    before = remote.refs()
    refusing = hook(remote, "pre-receive", "echo tags are protected here >&2; exit 1")
    with pytest.raises(GitRefused, match="tags are protected here"):
        await two[0].cut(await two[0].planned(commit))
    assert remote.refs() == before
    assert await two[0].mirror.tags() == ()
    refusing.unlink()
    assert await two[0].cut(await two[0].planned(commit)) == "v0.1.0"


async def test_a_tag_whose_answer_was_lost_is_found_again(remote: GitRepo, two: list[Reconciler]) -> None:
    [commit] = commits(remote, 1)
    await two[0].mirror.refresh()
    # The server dies after the tag is there and before it says so.
    dying = hook(remote, "reference-transaction", '[ "$1" != committed ] || kill -9 "$PPID"')
    planned = await two[0].planned(commit)
    with pytest.raises(GitUnavailable):
        await two[0].cut(planned)
    dying.unlink()
    there = remote.refs()
    assert "refs/tags/v0.1.0" in there
    # Whoever tries again takes it: the same one with what it knew, and another one that looks first.
    assert await two[0].cut(replace(planned, tag="v0.1.0")) == "v0.1.0"
    other = Reconciler(two[1].mirror, "staging")
    await other.mirror.refresh()
    again = await other.planned(commit)
    assert (again.tag, again.cut) == ("v0.1.0", False)
    assert remote.refs() == there
