"""The ssh transport against a real sshd on loopback, with throwaway keys."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import GitUnavailable
from reconciler.git.mirror import GitOptions, Mirror
from tests.gitrepo import GitRepo
from tests.sshd import IS_THERE, Sshd, running_sshd

pytestmark = pytest.mark.skipif(not IS_THERE, reason="sshd and ssh are not installed (openssh-server)")


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path / "ssh") as running:
        yield running


def url_of(sshd: Sshd, repo: Path) -> str:
    user, _, host = sshd.destination.partition("@")
    return f"ssh://{user}@{host}:{sshd.port}{repo}"


def options_of(sshd: Sshd, *, key: str = "user", known_hosts: str = "known_hosts") -> GitOptions:
    return GitOptions(
        ssh_command=f"ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -i {sshd.directory / key}"
        f" -o UserKnownHostsFile={sshd.directory / known_hosts} -o GlobalKnownHostsFile=/dev/null"
    )


async def test_fetch_and_push_over_ssh(sshd: Sshd, remote: GitRepo, tmp_path: Path) -> None:
    first = remote.commit({"a": "1"})
    mirror = Mirror(url_of(sshd, remote.path), tmp_path / "m.git", options=options_of(sshd))
    assert (await mirror.refresh()).heads == {"main": first}
    second = await mirror.write_commit(await mirror.write_tree(first, {"a": b"2"}), [first], "m\n")
    assert await mirror.push("refs/heads/main", second, expected=first)
    assert remote.files() == {"a": b"2"}
    assert not await mirror.push("refs/heads/main", first, expected=first)


async def test_each_refusal_over_ssh_is_named(sshd: Sshd, remote: GitRepo, tmp_path: Path) -> None:
    remote.commit({"a": "1"})
    for url, options, says in (
        (url_of(sshd, remote.path), options_of(sshd, key="stranger"), "did not accept our credentials"),
        (url_of(sshd, remote.path), options_of(sshd, known_hosts="none"), "known_hosts"),
        (url_of(sshd, remote.path), options_of(sshd, known_hosts="other_hosts"), "known_hosts"),
        (url_of(sshd, tmp_path / "nowhere"), options_of(sshd), "no such repository"),
    ):
        with pytest.raises(GitUnavailable, match=says) as raised:
            await Mirror(url, tmp_path / "m.git", options=options).refresh()
        assert len(str(raised.value).splitlines()) == 1
    assert not (tmp_path / "m.git").exists()
