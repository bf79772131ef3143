"""Users and groups of this host: what there is, what there is not, and what nobody says."""

import errno
import grp
import os
import pwd
from collections.abc import Callable

import pytest

from agent import accounts, libc
from agent.accounts import Lookups, Unanswered
from agent.failures import TaskFailed
from agent.libc import Account, find_account
from agent.owners import NOBODYS, Owners


def test_what_the_system_has() -> None:
    for user in pwd.getpwall():
        named, numbered = pwd.getpwnam(user.pw_name), pwd.getpwuid(user.pw_uid)
        assert find_account("user", user.pw_name) == (user.pw_name, named.pw_uid, named.pw_dir)
        assert find_account("user", user.pw_uid) == (numbered.pw_name, user.pw_uid, numbered.pw_dir)
    for group in grp.getgrall():
        gid, name = grp.getgrnam(group.gr_name).gr_gid, grp.getgrgid(group.gr_gid).gr_name
        assert find_account("group", group.gr_name) == (group.gr_name, gid, "")
        assert find_account("group", group.gr_gid) == (name, group.gr_gid, "")


@pytest.mark.parametrize("key", ["no-such-name", "root\0", "", "\udcff", "0", 4_111_222_333])
def test_what_it_has_not(key: str | int) -> None:
    assert find_account("user", key) is None
    assert find_account("group", key) is None


def test_a_group_with_very_many_members_gets_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    real = libc._function("getgrnam_r")
    assert real is not None

    def large(*arguments: object) -> int:
        room = arguments[3].value  # type: ignore[attr-defined]
        given.append(room)
        return errno.ERANGE if room < 1024 * 1024 else real(*arguments)

    monkeypatch.setattr(libc, "_function", lambda _name: large)
    name = grp.getgrgid(0).gr_name
    assert find_account("group", name) == (name, 0, "")
    assert given == sorted(given)
    assert len(given) > 3


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The services of names can't be asked; nothing but the number of the error tells that."""
    monkeypatch.setattr(libc, "_function", lambda _name: lambda *_: errno.ECONNREFUSED)


@pytest.mark.usefixtures("down")
def test_what_nobody_could_be_asked_is_not_what_is_not_there() -> None:
    lookups = Lookups()
    asked: list[Callable[[], object]] = [
        lambda: lookups.user_id("app"),
        lambda: lookups.group_id("app"),
        lambda: lookups.user_name(4321),
        lambda: lookups.group_name(4321),
    ]
    for ask in asked:
        with pytest.raises(Unanswered, match=r"does not say whether it has the .*: Connection refused"):
            ask()


@pytest.mark.usefixtures("down")
def test_a_name_that_this_host_allows_is_waited_for_and_no_other() -> None:
    owners = Owners(("app",), may_give=True)
    with pytest.raises(TaskFailed, match="whether it has the user 'app': Connection refused") as failed:
        owners.ids(("app", ""))
    assert failed.value.code == "Busy"
    assert owners.ids(("other", "others")) == NOBODYS
    assert "owner 'other' is not among this host's owners" in owners.warning([(1, "other", "")])


def test_all_names_together_have_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    asked: list[str | int] = []

    def slow(_kind: str, key: str | int) -> Account | None:
        nonlocal now
        now += accounts.LOOKUP_SECONDS * 0.9
        asked.append(key)
        return Account("some", 4321)

    monkeypatch.setattr(libc, "find_account", slow)
    lookups = Lookups(lambda: now)
    names = [f"app{number}" for number in range(256)]
    owners = Owners(names, may_give=True, lookups=lookups)
    answers: list[object] = []
    with pytest.raises(TaskFailed, match="looking up others took more than 30 s"):
        answers.extend(owners.ids((name, "")) for name in names)
    assert asked == names[:4]
    # Nor is anybody asked right after that, by who goes on.
    lookups.renew()
    with pytest.raises(Unanswered):
        lookups.user_id("app")
    now += accounts.PAUSE_SECONDS
    lookups.renew()
    assert lookups.user_id("app") == 4321
    lookups.renew()
    assert [lookups.user_id(f"{number}") for number in range(3)] == [4321] * 3


def test_the_agents_own_user_is_known() -> None:
    own = pwd.getpwuid(os.geteuid())
    assert Owners((), may_give=True).ids((own.pw_name, ""))[0] == own.pw_uid
