"""Env files: what is read, and what a person is told about those that cannot be."""

import os
from pathlib import Path

import pytest

from reconciler.secrets.env_file import MAX_FILE, EnvFileSource
from reconciler.secrets.errors import SourceRefused
from reconciler.secrets.source import SourceContext
from tests.canaries import canary, may_hold
from tests.reconciler.secrets.sources import env_file, write_env_file

CONTEXT = SourceContext.from_environ({})


async def fetched(path: Path) -> dict[str, str]:
    source = EnvFileSource(env_file(path), CONTEXT)
    return {key: value.reveal() for key, value in (await source.fetch("production")).items()}


TEXT = r"""
# a comment
PLAIN=value # and one behind it
export EXPORTED=yes
SPACED = around
SINGLE='it\'s $HOME and \n as written'
DOUBLE="tab\t, quote \" and ${PLAIN}"
LINES="-----BEGIN-----
abc
-----END-----"
HASH=a#b
EMPTY=
TWICE=first
TWICE=second
'QUOTED KEY'=x
"""


async def test_the_syntax_is_python_dotenv_s_without_expansion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIN", canary("from-the-environment"))
    assert await fetched(write_env_file(tmp_path / ".env", TEXT)) == {
        "PLAIN": "value",
        "EXPORTED": "yes",
        "SPACED": "around",
        "SINGLE": r"it's $HOME and \n as written",
        "DOUBLE": 'tab\t, quote " and ${PLAIN}',
        "LINES": "-----BEGIN-----\nabc\n-----END-----",
        "HASH": "a#b",
        "EMPTY": "",
        "TWICE": "second",
        "QUOTED KEY": "x",
    }


async def test_line_ends_of_other_systems_and_a_mark_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("\ufeffA=1\r\nB='x\r\ny'\r\n".encode())
    path.chmod(0o600)
    assert await fetched(path) == {"A": "1", "B": "x\r\ny"}


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("A=1\n\n\nB='open {}\n", 4, "a quote is not closed"),
        ("A='1\n2'\nB=\"x\" {}\n", 3, "not of the form NAME=value"),
        ("{}\n", 1, "a name without `=`"),
        ("A=1\r\n\r\n{}\r\n", 3, "a name without `=`"),
        ("=x\n", 1, "not of the form NAME=value"),
    ],
)
async def test_a_malformed_line_is_located(tmp_path: Path, text: str, line: int, problem: str) -> None:
    path = write_env_file(tmp_path / ".env", text.format(canary("malformed")))
    with pytest.raises(SourceRefused) as caught:
        await fetched(path)
    assert str(caught.value).startswith(f"secret source local: {path}:{line}: ")
    assert problem in str(caught.value)
    assert canary("malformed") not in str(caught.value)


async def test_a_missing_file_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceRefused, match=f"local: {tmp_path}/x/.env: there is no such file; create it"):
        await fetched(Path("x/.env"))


async def test_what_is_no_env_file(tmp_path: Path) -> None:
    pipe, large, binary = tmp_path / "pipe", tmp_path / "large", tmp_path / "binary"
    os.mkfifo(pipe)
    large.write_bytes(b"#" * (MAX_FILE + 1))
    binary.write_bytes(b"A=\xff\n")
    with pytest.raises(SourceRefused, match="it is not a regular file"):
        await fetched(pipe)
    with pytest.raises(SourceRefused, match="it is not a regular file"):
        await fetched(tmp_path)
    with pytest.raises(SourceRefused, match=f"it is larger than {MAX_FILE} bytes"):
        await fetched(large)
    with pytest.raises(SourceRefused, match="it is not UTF-8 text; save it as UTF-8"):
        await fetched(binary)


async def test_open_permissions_are_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_env_file(tmp_path / ".env", f"KEY={canary('env-file')}\n", 0o644)
    source = EnvFileSource(env_file(path), CONTEXT)
    for _ in range(3):
        await source.fetch("production")
    assert caplog.messages == [
        f"[env_file] {path} is open to other users (mode 0644); run: chmod 600 {path}",
    ]
    may_hold(path).chmod(0o600)
    await source.fetch("production")
    assert len(caplog.messages) == 1
