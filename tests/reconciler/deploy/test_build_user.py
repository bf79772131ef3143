"""Finding the account that runs a repository's code."""

import os
import pwd

import pytest

from reconciler.deploy.build_user import find_build_user
from reconciler.errors import SettingsError


def test_none_asked_for() -> None:
    assert find_build_user(None) is None


def test_the_account_that_we_are_already() -> None:
    assert find_build_user(pwd.getpwuid(os.geteuid()).pw_name) is None


def test_no_such_account() -> None:
    with pytest.raises(SettingsError, match="TRUEUP_BUILD_USER: there is no user 'no-such-user'"):
        find_build_user("no-such-user")


def test_only_root_can_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SettingsError, match="only root can run tasks as 'root'"):
        find_build_user("root")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")
def test_the_account_with_its_groups() -> None:
    entry = pwd.getpwnam("nobody")
    found = find_build_user("nobody")
    assert found is not None
    assert (found.name, found.uid, found.gid) == ("nobody", entry.pw_uid, entry.pw_gid)
    assert entry.pw_gid not in found.groups
    assert 0 not in found.groups
