"""Credentials: variables, NAME_FILE and files, each failure in one line."""

from pathlib import Path

import pytest

from reconciler.errors import SettingsError
from reconciler.keys import MasterKey, write_key_file
from reconciler.secrets.credentials import MAX_CREDENTIAL, Credentials
from reconciler.spec.model import Credential, EnvCredential, FileCredential, SecretCredential
from tests.canaries import canary, may_hold

TOKEN = EnvCredential(name="TOKEN")


async def read(credential: Credential, **environ: str) -> str:
    return (await Credentials(environ).read(credential, "production")).reveal()


def file_of(path: Path, data: bytes) -> str:
    may_hold(path).write_bytes(data)
    return str(path)


async def test_a_variable() -> None:
    assert await read(TOKEN, TOKEN="x\n") == "x\n"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
async def test_a_file_with_or_without_a_last_newline(tmp_path: Path, end: str) -> None:
    path = file_of(tmp_path / "token", (canary("token") + end).encode())
    assert await read(FileCredential(path=path)) == canary("token")
    assert await read(TOKEN, TOKEN_FILE=path) == canary("token")
    assert await read(TOKEN, TOKEN_FILE=path, TOKEN="") == canary("token")


async def test_a_file_keeps_its_other_newlines(tmp_path: Path) -> None:
    assert await read(FileCredential(path=file_of(tmp_path / "key", b"\na\nb\n\n"))) == "\na\nb\n"


@pytest.mark.parametrize(
    ("data", "problem"), [(b"", "it is empty"), (b"\n", "it is empty"), (b"\xff", "it is not UTF-8 text")]
)
async def test_files_that_hold_no_credential(tmp_path: Path, data: bytes, problem: str) -> None:
    path = file_of(tmp_path / "token", data)
    with pytest.raises(SettingsError, match=f"^credential file {path}: {problem}$"):
        await read(FileCredential(path=path))
    with pytest.raises(SettingsError, match=f"^the file that TOKEN_FILE names, {path}: {problem}$"):
        await read(TOKEN, TOKEN_FILE=path)


async def test_a_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = file_of(tmp_path / "token", b"x" * (MAX_CREDENTIAL + 1))
    with pytest.raises(SettingsError, match="it is larger than"):
        await read(FileCredential(path=path))


async def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^the variable TOKEN is not set; set TOKEN, or TOKEN_FILE to"):
        await read(TOKEN)
    with pytest.raises(SettingsError, match="there is no such file"):
        await read(FileCredential(path=str(tmp_path / "nothing")))
    with pytest.raises(SettingsError, match=r"^both TOKEN and TOKEN_FILE are set; unset one of them$"):
        await read(TOKEN, TOKEN="x", TOKEN_FILE="/x")
    with pytest.raises(SettingsError, match="needs a secret store"):
        await read(SecretCredential(source="prod", key="TOKEN"))


def test_printing_shows_no_environment() -> None:
    assert canary("environ") not in repr(Credentials({"X": canary("environ")}))


async def test_the_master_key_is_no_credential(tmp_path: Path) -> None:
    path = may_hold(tmp_path / "master.key")
    write_key_file(path, MasterKey.generate())
    with pytest.raises(SettingsError, match="holds a key of trueup"):
        await Credentials({}).read(FileCredential(path=str(path)), "production")
