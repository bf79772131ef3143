"""Threats 1 and 2: what a spec may not make git do through a URL or a ref."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import GitRefused
from reconciler.git.urls import check_ref, check_url, redact, shown
from tests.canaries import canary
from tests.gitrepo import git_environment

ALLOWED = [
    "https://github.com/org/repo.git",
    "https://git.example:8443/a/b",
    "ssh://git@host.example/org/repo.git",
    "ssh://git@host.example:2222/~user/repo.git",
    "ssh://[::1]:22/srv/repo",
    "git@github.com:org/repo.git",
    "build_host:/srv/git/repo.git",
]
LOCAL = ["/srv/git/repo.git", "/srv/with space/repo", "file:///srv/git/repo.git"]
REFUSED = [
    "",
    "ext::sh -c 'touch /tmp/owned'",
    "ext::sh% -c% id",
    "fd::17",
    "::/srv/repo",
    "--upload-pack=touch /tmp/owned",
    "-u",
    "http://github.com/org/repo",
    "git://github.com/org/repo",
    "ftp://host/repo",
    "HTTPS://github.com/org/repo",
    "ssh://-oProxyCommand=id/repo",
    "ssh://git@-oProxyCommand=id/repo",
    "-oProxyCommand=id:repo",
    "git@-oProxyCommand=id:repo",
    "host:-u/repo",
    "ssh://host/re\npo",
    "https://host/re\x00po",
    "https://host/re\u202epo",
    "https://host",
    "https:///repo",
    "https://host/repo?private_token=x",
    "https://host/a b",
    "https://host\\@evil/repo",
    "ssh://host:port/repo",
    "relative/path",
    "./repo",
    "../repo",
    ".",
    "file://host/srv/repo",
    "file:relative",
    "host:a:b",
    "a" * 5000,
]


@pytest.mark.parametrize("url", ALLOWED)
def test_network_forms_pass_unchanged(url: str) -> None:
    assert check_url(url, allow_local=False) == url
    assert check_url(url, allow_local=True) == url


@pytest.mark.parametrize("url", LOCAL)
def test_local_forms_need_the_operators_leave(url: str) -> None:
    assert check_url(url, allow_local=True) == url
    with pytest.raises(GitRefused, match="TRUEUP_ALLOW_LOCAL_REPOS"):
        check_url(url, allow_local=False)


@pytest.mark.parametrize("url", REFUSED)
def test_everything_else_is_refused_with_one_line(url: str) -> None:
    for allow_local in (False, True):
        with pytest.raises(GitRefused) as refused:
            check_url(url, allow_local=allow_local)
        assert len(str(refused.value).splitlines()) == 1
        assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "form",
    [
        "https://user:{}@host/r",
        "https://{}@host/r",
        "https://user:a/{}@host/r",
        "https://host/r?access_token={}",
        "ssh://u:{}@h/r",
        "u:{}@host:r",
    ],
)
def test_credentials_in_a_url_are_refused_and_never_shown(form: str) -> None:
    secret = canary("git-url")
    with pytest.raises(GitRefused) as refused:
        check_url(form.format(secret), allow_local=True)
    assert secret not in str(refused.value)
    assert secret not in repr(refused.value)


def test_redact_takes_the_user_part_out_of_every_url() -> None:
    text = "fatal: unable to access 'https://u:p@h/x': see http://t@h2/y and ssh://git@h/z"
    assert redact(text) == "fatal: unable to access 'https://***@h/x': see http://***@h2/y and ssh://***@h/z"
    assert (
        redact("fatal: unable to access 'https://h/x?key=1'") == "fatal: unable to access 'https://h/x?***'"
    )
    assert redact("https://h:8443/x: no such user: me@h") == "https://h:8443/x: no such user: me@h"


@given(st.text(max_size=40))
def test_no_accepted_url_is_an_option_a_helper_or_holds_controls(tail: str) -> None:
    for url in (tail, f"https://h/{tail}", f"ssh://{tail}/r", f"h:{tail}", f"https://{tail}/r"):
        try:
            accepted = check_url(url, allow_local=False)
        except GitRefused as refused:
            assert str(refused).isprintable()
            continue
        assert accepted == url
        assert not accepted.startswith(("-", "/", "."))
        assert accepted.isascii() and accepted.isprintable()
        authority = accepted.removeprefix("https://").removeprefix("ssh://")
        assert not authority.startswith("-") and "@-" not in authority.split("/")[0]
        assert "::" not in accepted.split("/")[0]


@pytest.mark.parametrize(
    "ref", ["main", "v1.2.3", "feature/a-b", "refs/heads/main", "platform/v1", "größe", "a@b"]
)
def test_plain_refs_pass(ref: str) -> None:
    assert check_ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "-",
        "--upload-pack=x",
        "a..b",
        "a b",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a\\",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.lock",
        "a.lock/b",
        "a.",
        "@",
        "a@{0}",
        "a\nb",
        "a\u202eb",
        "a\x7f",
        "x" * 2000,
    ],
)
def test_other_refs_are_refused(ref: str) -> None:
    with pytest.raises(GitRefused) as refused:
        check_ref(ref)
    assert len(str(refused.value).splitlines()) == 1


@given(st.text(alphabet="ab/.-@{}~^:?*[\\ lock", min_size=1, max_size=12))
def test_an_accepted_ref_is_one_that_git_accepts(ref: str) -> None:
    try:
        check_ref(ref)
    except GitRefused:
        return
    command = ["git", "check-ref-format", f"refs/heads/{ref}"]
    assert subprocess.run(command, env=git_environment(), timeout=60).returncode == 0


def test_shown_is_one_short_printable_line() -> None:
    assert shown("a\nb\u202e\udc80" + "c" * 900).isprintable()
    assert len(shown("c" * 900)) < 250
