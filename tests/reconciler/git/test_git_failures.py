"""What git's words mean: one clear line for each class of failure, and never a credential in it."""

import pytest

from reconciler.errors import GitRefused, GitUnavailable, TrueupError
from reconciler.git.failures import GitFailed, failure
from tests.canaries import canary


@pytest.mark.parametrize(
    ("stderr", "kind", "says"),
    [
        (
            "fatal: unable to access 'https://h/r/': Could not resolve host: h",
            GitUnavailable,
            "host name is unknown",
        ),
        (
            "ssh: Could not resolve hostname h: Name or service not known\nfatal: Could not read from remote",
            GitUnavailable,
            "host name is unknown",
        ),
        (
            "fatal: unable to access 'https://h/r/': Failed to connect to h: Couldn't connect to server",
            GitUnavailable,
            "refused",
        ),
        (
            "fatal: could not read Username for 'https://h': terminal prompts disabled",
            GitUnavailable,
            "credentials",
        ),
        (
            "remote: Invalid username or password.\nfatal: Authentication failed for 'https://h/r/'",
            GitUnavailable,
            "credentials",
        ),
        (
            "fatal: unable to access 'https://h/r/': The requested URL returned error: 403",
            GitUnavailable,
            "credentials",
        ),
        (
            "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.",
            GitUnavailable,
            "credentials",
        ),
        (
            "Host key verification failed.\nfatal: Could not read from remote repository.",
            GitUnavailable,
            "known_hosts",
        ),
        (
            "remote: Repository not found.\nfatal: repository 'https://h/r/' not found",
            GitUnavailable,
            "no such repo",
        ),
        (
            "ERROR: Repository not found.\nfatal: Could not read from remote repository.",
            GitUnavailable,
            "no such repo",
        ),
        ("fatal: '/x' does not appear to be a git repository", GitUnavailable, "no such repository"),
        (
            "ssh: connect to host h port 22: Connection timed out\nfatal: Could not read from",
            GitUnavailable,
            "timed out",
        ),
        (
            "fatal: unable to access 'https://h/': SSL certificate problem: self-signed",
            GitUnavailable,
            "certificate",
        ),
        (
            "fatal: unable to access 'https://h/': The requested URL returned error: 502",
            GitUnavailable,
            "of its own",
        ),
        ("kex_exchange_identification: Connection closed by remote host", GitUnavailable, "broke"),
        (
            f"fatal: invalid index-pack output\nerror: object {'a' * 40}: hasDotgit: contains '.git'",
            GitRefused,
            "git's own check",
        ),
        ("fatal: write error: No space left on device", GitFailed, "disk is full"),
        ("fatal: something else", GitFailed, "something else"),
        ("", GitFailed, "exit code 128"),
    ],
)
def test_each_class_of_failure_has_one_clear_line(stderr: str, kind: type[TrueupError], says: str) -> None:
    error = failure(128, stderr, "https://h/r")
    assert isinstance(error, kind)
    assert says in str(error)
    assert str(error).startswith("https://h/r: ")
    assert len(str(error).splitlines()) == 1


def test_no_message_repeats_credentials_of_a_url() -> None:
    secret = canary("git-message")
    for code, stderr in (
        (128, f"fatal: unable to access 'https://u:{secret}@h/r/': Could not resolve host"),
        (1, f"fatal: odd https://{secret}@h/r"),
        (-9, ""),
    ):
        assert secret not in str(failure(code, stderr, f"https://u:{secret}@h/r"))
