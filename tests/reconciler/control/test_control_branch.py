"""The control branch in real repositories: nothing lost in a race, and nothing missing taken for nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio

from reconciler.control.branch import MAX_TRIES, Appended, ControlBranch
from reconciler.control.files import parse_record, render_record
from reconciler.control.records import Record
from reconciler.errors import (
    ControlContended,
    ControlRewound,
    ControlUnreadable,
    GitRefused,
    GitUnavailable,
    SettingsError,
)
from reconciler.git.mirror import Mirror
from tests.gitrepo import GitRepo, Link
from tests.reconciler.control.records import ANNA, EACH, record

REF = "refs/heads/trueup/control"


@pytest.fixture
def remote(tmp_path: Path) -> GitRepo:
    remote = GitRepo.create(tmp_path / "remote.git")
    remote.commit({"trueup.yaml": "version: 1\n"})
    return remote


Open = Callable[..., ControlBranch]


@pytest.fixture
def open_control(tmp_path: Path, remote: GitRepo) -> Open:
    """The branch as an operator of that name has it."""

    def open_control(name: str = "anna") -> ControlBranch:
        return ControlBranch(Mirror(remote.url, tmp_path / name / "mirror.git", allow_local=True))

    return open_control


async def fetched(control: ControlBranch) -> ControlBranch:
    await control._mirror.refresh()
    return control


def on_remote(remote: GitRepo) -> list[Record]:
    return [parse_record(path, content) for path, content in remote.files(REF).items()]


def freeze(reason: str) -> Record:
    return record("freeze", reason=reason)


async def add(control: ControlBranch, *records: Record, author: str = ANNA) -> Appended:
    return await control.append(lambda _: records, author=author)


def by_hand(remote: GitRepo, number: int, content: bytes | None = None) -> str:
    text = render_record(freeze("by hand")) if content is None else content
    return remote.commit({f"records/{number:06}.yaml": text}, branch=REF)


async def test_no_branch_is_no_record_and_the_first_commit_is_a_root(
    remote: GitRepo, open_control: Open
) -> None:
    control = await fetched(open_control())
    assert await control.read() == ()
    done = await add(control, record("hold", environment="production", reason="a sale"))
    assert remote.log(REF) == [done.commit]
    assert list(remote.files(REF)) == ["records/000001.yaml"]
    assert on_remote(remote) == list(done.records) == list(await control.read())
    assert remote.git("log", "-1", "--format=%an <%ae>|%cn <%ce>|%B", REF) == (
        f"{ANNA}|{ANNA}|hold production\n\na sale"
    )


async def test_several_records_are_one_commit_and_follow_those_that_are_there(
    remote: GitRepo, open_control: Open
) -> None:
    control = await fetched(open_control())
    await add(control, *EACH)
    done = await add(control, *EACH[:2], author="Ben <ben@example.org>")
    assert len(remote.log(REF)) == 2
    assert [each.number for each in await control.read()] == list(range(1, len(EACH) + 3))
    assert on_remote(remote)[: len(EACH)] == list(EACH)
    assert remote.git("log", "-1", "--format=%an|%B", done.commit).splitlines() == [
        "Ben|hold infra in production and 1 more",
        "",
        "hold infra in production",
        "unhold production",
        "",
        "a sale",
    ]


async def test_a_commit_by_hand_counts_as_one_of_a_command(remote: GitRepo, open_control: Open) -> None:
    control = await fetched(open_control())
    await add(control, freeze("one"))
    by_hand(remote, 2)
    await fetched(control)
    assert [each.reason for each in await control.read()] == ["one", "by hand"]


async def test_as_many_other_records_are_not_the_same_decisions(remote: GitRepo, open_control: Open) -> None:
    """Somebody replaces a freeze by a commit of their own: a primary that was restarted notices it too."""
    control = await fetched(open_control())
    seen = (await add(control, freeze("an incident"))).commit
    remote.delete(REF)
    by_hand(remote, 1, render_record(record("unfreeze")))
    restarted = await fetched(open_control("ben"))
    assert len(await restarted.read(seen=1)) == 1
    with pytest.raises(ControlRewound, match="does not contain it"):
        await restarted.read(seen=1, commit=seen)


async def test_who_loses_a_race_is_numbered_behind_the_winner(remote: GitRepo, open_control: Open) -> None:
    """Both know the same branch; the loser's decision is made anew from what the winner recorded."""
    anna, ben = await fetched(open_control("anna")), await fetched(open_control("ben"))
    await add(anna, freeze("anna"))
    seen: list[int] = []

    def make(known: Sequence[Record]) -> list[Record]:
        seen.append(len(known))
        return [freeze("ben")]

    done = await ben.append(make, author=ANNA)
    assert (seen, done.records[0].number) == ([0, 1], 2)
    assert [each.reason for each in on_remote(remote)] == ["anna", "ben"]


async def test_who_loses_a_race_may_refuse_what_is_not_right_any_more(
    remote: GitRepo, open_control: Open
) -> None:
    anna, ben = await fetched(open_control("anna")), await fetched(open_control("ben"))
    await add(anna, freeze("anna"))

    def make(known: Sequence[Record]) -> list[Record]:
        if known:
            raise SettingsError("it is frozen already")
        return [freeze("ben")]

    with pytest.raises(SettingsError, match="frozen already"):
        await ben.append(make, author=ANNA)
    assert len(on_remote(remote)) == 1


async def test_many_appenders_at_once_lose_and_repeat_no_number(remote: GitRepo, open_control: Open) -> None:
    writers, each = 6, 4
    done: list[Appended] = []

    async def write(name: str) -> None:
        control = await fetched(open_control(name))
        for index in range(each):
            done.append(await add(control, freeze(f"{name} {index}"), freeze(f"{name} {index} too")))

    async with trio.open_nursery() as nursery:
        for number in range(writers):
            nursery.start_soon(write, f"writer-{number}")
    found = on_remote(remote)
    assert sorted(found, key=lambda one: one.number) == found
    assert [one.number for one in found] == list(range(1, writers * each * 2 + 1))
    assert sorted((one for each in done for one in each.records), key=lambda one: one.number) == found
    assert len(remote.log(REF)) == writers * each


async def test_who_never_gets_through_is_told_that_nothing_is_recorded(
    remote: GitRepo, open_control: Open
) -> None:
    anna, ben = await fetched(open_control("anna")), await fetched(open_control("ben"))
    tries = 0

    async def overtake() -> None:
        await fetched(anna)
        await add(anna, freeze("anna"))

    async def push(*args: object, **options: object) -> bool:
        nonlocal tries
        tries += 1
        await overtake()
        return bool(await Mirror.push(ben._mirror, *args, **options))  # type: ignore[arg-type]

    ben._mirror.push = push  # type: ignore[method-assign]
    with pytest.raises(ControlContended, match="nothing is recorded; try again"):
        await add(ben, freeze("ben"))
    assert tries == MAX_TRIES
    assert {each.reason for each in on_remote(remote)} == {"anna"}


async def test_a_push_that_the_server_refuses_records_nothing(remote: GitRepo, open_control: Open) -> None:
    hook = remote.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho only the on-call may >&2\nexit 1\n")
    hook.chmod(0o755)
    control = await fetched(open_control())
    with pytest.raises(GitRefused, match="only the on-call may"):
        await add(control, freeze("no"))
    assert remote.resolve(REF) is None
    assert await control.read() == ()


async def test_what_could_not_be_read_again_is_not_written(remote: GitRepo, open_control: Open) -> None:
    control = await fetched(open_control())
    with pytest.raises(ControlUnreadable, match="`environment` is missing"):
        await add(control, record("hold"))
    assert remote.resolve(REF) is None


async def test_nothing_is_read_before_anything_was_fetched(open_control: Open) -> None:
    with pytest.raises(GitUnavailable):
        await open_control().read()


# --- what is missing is never taken for nothing ------------------------------------------------


async def test_a_record_that_cannot_be_read_is_an_error_until_it_is_mended(
    remote: GitRepo, open_control: Open
) -> None:
    control = await fetched(open_control())
    await add(control, freeze("one"))
    by_hand(remote, 2, b"kind: unfreeez\n")
    await fetched(control)
    for reader in (control, await fetched(open_control("ben"))):
        with pytest.raises(ControlUnreadable, match=r"records/000002.yaml:1:\d+: kind: `unfreeez`"):
            await reader.read()
        with pytest.raises(ControlUnreadable):
            await add(reader, freeze("on top"))
    by_hand(remote, 2)
    await fetched(control)
    assert [each.reason for each in await control.read()] == ["one", "by hand"]


async def test_a_gap_is_an_error(remote: GitRepo, open_control: Open) -> None:
    by_hand(remote, 1)
    by_hand(remote, 3)
    control = await fetched(open_control())
    with pytest.raises(ControlUnreadable, match=r"has records/000003\.yaml and no records/000002\.yaml"):
        await control.read()


@pytest.mark.parametrize("path", ["README.md", "records/4.yaml", "records/a/000001.yaml"])
async def test_what_does_not_belong_there_is_an_error(remote: GitRepo, open_control: Open, path: str) -> None:
    by_hand(remote, 1)
    remote.commit({path: "text"}, branch=REF)
    with pytest.raises(ControlUnreadable, match=r"not the path of an operator's record|and no records"):
        await (await fetched(open_control())).read()


async def test_a_link_is_an_error(remote: GitRepo, open_control: Open) -> None:
    remote.commit({"records/000001.yaml": Link("/etc/passwd")}, branch=REF)
    with pytest.raises(ControlUnreadable, match="is a symlink"):
        await (await fetched(open_control())).read()


async def test_a_branch_that_was_set_back_is_an_error(remote: GitRepo, open_control: Open) -> None:
    control = await fetched(open_control())
    first = await add(control, freeze("one"))
    second = await add(control, record("unfreeze"))
    assert len(await control.read()) == 2
    remote.git("update-ref", REF, first.commit)
    await fetched(control)
    with pytest.raises(ControlRewound, match=r"does not contain it; push .* back"):
        await control.read()
    # Another process knows it by the number that a pass has recorded.
    ben = await fetched(open_control("ben"))
    assert len(await ben.read(seen=1)) == 1
    with pytest.raises(ControlRewound, match="ends with record 1, and a pass has seen record 2"):
        await ben.read(seen=2)
    with pytest.raises(ControlRewound):
        await ben.append(lambda _: [freeze("on top")], author=ANNA, seen=2)
    remote.git("update-ref", REF, second.commit)
    await fetched(control)
    assert len(await control.read(seen=2)) == 2


async def test_a_branch_that_is_gone_is_an_error_where_it_was_seen(
    remote: GitRepo, open_control: Open
) -> None:
    control = await fetched(open_control())
    await add(control, freeze("one"))
    await control.read()
    remote.delete("trueup/control")
    await fetched(control)
    with pytest.raises(ControlRewound, match="was deleted"):
        await control.read()
    with pytest.raises(ControlRewound, match="ends with record 0"):
        await (await fetched(open_control("ben"))).read(seen=1)
