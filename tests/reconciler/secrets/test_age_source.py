"""Kind `age`: files that age and pyrage wrote, on the primary and in repositories, and what can be wrong."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pyrage
import pytest

from reconciler.errors import SettingsError, TrueupError
from reconciler.secrets.age import AgeSource
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.secret_file import MAX_FILE
from reconciler.secrets.source import RepositoryFiles, SourceContext
from reconciler.spec.model import AgeSettings, EnvCredential, FileCredential, SecretSource
from tests.canaries import canary, may_hold
from tests.reconciler.secrets.repository_files import TestedRepository
from tests.reconciler.secrets.test_secret_leaks import assert_silent, printed_error

VALUE = canary("age")
KEY = pyrage.x25519.Identity.generate()
OTHER = pyrage.x25519.Identity.generate()

DOTENV = f"""\
# of the database
DB_PASSWORD={VALUE}
QUOTED='a "b" $c'
LINES="one
two"
EMPTY=
"""
YAML = f"""\
# of the database
DB_PASSWORD: {VALUE}
QUOTED: 'a "b" $c'
LINES: |-
  one
  two
EMPTY: ""
"""
VALUES = {"DB_PASSWORD": VALUE, "QUOTED": 'a "b" $c', "LINES": "one\ntwo", "EMPTY": ""}


def encrypted(text: str | bytes, *, armored: bool = False, to: Any = None) -> bytes:
    plain = text.encode() if isinstance(text, str) else text
    data: bytes = pyrage.encrypt(plain, [to or KEY.to_public()], armored=armored)
    return data


def source_of(
    file: Path | str,
    *,
    identity: str = str(KEY),
    repository: str | None = None,
    files: RepositoryFiles | None = None,
    form: Literal["dotenv", "yaml"] = "dotenv",
) -> AgeSource:
    settings = AgeSettings(
        file=str(file), repository=repository, identity=EnvCredential(name="AGE_KEY"), format=form
    )
    context = SourceContext(Credentials({"AGE_KEY": identity}), files=files)
    return AgeSource(SecretSource(name="sealed", kind="age", settings=settings), context)


def run(*command: str | Path, stdin: str = "") -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(command, input=stdin, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


async def fetched(source: AgeSource) -> Mapping[str, str]:
    return {key: value.reveal() for key, value in (await source.fetch("production")).items()}


def file_with(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "secrets.age"
    path.write_bytes(data)
    return path


async def refused(source: AgeSource) -> str:
    with pytest.raises(SourceRefused) as caught:
        await source.fetch("production")
    assert caught.value.__cause__ is None
    assert_silent(printed_error(caught.value))
    return str(caught.value)


# --- what is read ------------------------------------------------------------------------------


@pytest.mark.parametrize("armored", [False, True])
@pytest.mark.parametrize("form", ["dotenv", "yaml"])
async def test_both_formats_binary_and_armoured(
    tmp_path: Path, form: Literal["dotenv", "yaml"], armored: bool
) -> None:
    path = file_with(tmp_path, encrypted(DOTENV if form == "dotenv" else YAML, armored=armored))
    assert await fetched(source_of(path, form=form)) == VALUES


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed")
@pytest.mark.parametrize("option", [[], ["--armor"]])
async def test_files_of_age_itself_with_an_identity_of_age_keygen(tmp_path: Path, option: list[str]) -> None:
    key = tmp_path / "age.key"
    run("age-keygen", "-o", key)
    path = tmp_path / "secrets.age"
    run("age", *option, "-r", run("age-keygen", "-y", key).strip(), "-o", path, stdin=DOTENV)
    # The whole file: comments with the public key and the date, then the identity.
    assert key.read_text().startswith("# created: ")
    settings = AgeSettings(file=str(path), identity=FileCredential(path=str(key)))
    source = SecretSource(name="sealed", kind="age", settings=settings)
    assert await fetched(AgeSource(source, SourceContext.from_environ({}))) == VALUES


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
async def test_an_openssh_key_as_identity(tmp_path: Path, kind: str) -> None:
    key = tmp_path / "id"
    run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key)
    public = pyrage.ssh.Recipient.from_str(key.with_suffix(".pub").read_text())
    path = file_with(tmp_path, encrypted(DOTENV, to=public))
    # As a credential gives it, without the newline at its end.
    assert await fetched(source_of(path, identity=key.read_text().rstrip("\n"))) == VALUES
    if kind == "ed25519" and shutil.which("age") is not None:
        run("age", "-R", f"{key}.pub", "-o", path, stdin=DOTENV)
        assert await fetched(source_of(path, identity=key.read_text())) == VALUES


async def test_the_first_of_several_identities_that_fits(tmp_path: Path) -> None:
    identity = f"# the old one\r\n{OTHER}\r\n\r\n# the new one\r\n{KEY}"
    assert await fetched(source_of(file_with(tmp_path, encrypted(DOTENV)), identity=identity)) == VALUES


# --- what is wrong with a file -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "problem"),
    # The keys are new in each process, and two processes of a run must agree on the tests' names.
    ids=[f"file-{number}" for number in range(1, 11)],
    argvalues=[
        (f"DB_PASSWORD={VALUE}\n".encode(), "it is not a file that age encrypted; encrypt it: age -r"),
        (b"", "it is not a file that age encrypted"),
        (encrypted(DOTENV)[:-9], "it is cut off or damaged"),
        (encrypted(DOTENV)[:60], "it is cut off or damaged"),
        (encrypted(DOTENV, armored=True)[:-60], "it is cut off or damaged"),
        (encrypted(DOTENV) + b"x", "it is cut off or damaged"),
        (encrypted(DOTENV, to=OTHER.to_public()), "`identity` does not open it; encrypt it for that one"),
        (encrypted(b"A=\xff\xfe"), "the decrypted text is not UTF-8"),
        (encrypted(f"A=1\n\n{VALUE}\n"), "line 3 of the decrypted text, read as dotenv: a name without `=`"),
        (encrypted(f"A='{VALUE}\n"), "line 1 of the decrypted text, read as dotenv: not of the form"),
    ],
)  # fmt: skip
async def test_files_that_will_not_do(tmp_path: Path, data: bytes, problem: str) -> None:
    path = may_hold(file_with(tmp_path, data))
    assert (await refused(source_of(path))).startswith(f"secret source sealed: {path}: {problem}")


@pytest.mark.parametrize("armored", [False, True])
async def test_a_file_with_a_passphrase(tmp_path: Path, armored: bool) -> None:
    data = pyrage.passphrase.encrypt(DOTENV.encode(), "correct horse", armored=armored)
    assert "it is encrypted with a passphrase" in await refused(source_of(file_with(tmp_path, data)))


async def test_a_file_that_is_missing_or_too_large(tmp_path: Path) -> None:
    path = tmp_path / "secrets.age"
    assert await refused(source_of(path)) == (
        f"secret source sealed: {path}: there is no such file; create it, or mend `file`"
    )
    path.write_bytes(b"#" * (MAX_FILE + 1))
    assert f"it is larger than {MAX_FILE} bytes" in await refused(source_of(path))


# --- what is wrong with an identity ------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "problem"),
    ids=[f"identity-{number}" for number in range(1, 6)],
    argvalues=[
        ("# only a comment", "there is no identity in it; give what age-keygen wrote"),
        (f"{OTHER}\n{VALUE}", "line 2 is not an identity AGE-SECRET-KEY-1…"),
        (str(KEY)[:-4], "line 1 is not an identity AGE-SECRET-KEY-1…"),
        (str(KEY.to_public()), "line 1 is not an identity AGE-SECRET-KEY-1…"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "the OpenSSH key is not an ed25519 or RSA key"),
    ],
)  # fmt: skip
async def test_identities_that_will_not_do(tmp_path: Path, identity: str, problem: str) -> None:
    path = file_with(tmp_path, encrypted(DOTENV))
    said = await refused(source_of(path, identity=identity))
    assert said.startswith(f"secret source sealed: `identity`: {problem}")
    assert str(KEY)[20:40] not in said


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
@pytest.mark.parametrize("options", [["-t", "ecdsa", "-N", ""], ["-t", "ed25519", "-N", "correct horse"]])
async def test_ssh_keys_that_will_not_do(tmp_path: Path, options: list[str]) -> None:
    key = tmp_path / "id"
    run("ssh-keygen", "-q", *options, "-f", key)
    said = await refused(source_of(file_with(tmp_path, encrypted(DOTENV)), identity=key.read_text()))
    assert "the OpenSSH key is not an ed25519 or RSA key without a passphrase" in said


async def test_an_identity_that_is_not_set(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the variable AGE_KEY is not set"):
        await source_of(file_with(tmp_path, encrypted(DOTENV)), identity="").fetch("production")


# --- in a repository ---------------------------------------------------------------------------


async def test_the_tip_of_a_branch(tmp_path: Path) -> None:
    repository = TestedRepository(tmp_path)
    repository.remote.commit({"secrets/prod.age": encrypted(DOTENV)})
    source = source_of("secrets/prod.age", repository="infra", files=repository.files())
    assert await fetched(source) == VALUES
    first = await source.version()
    repository.remote.commit({"README.md": "no change of the file"})
    repository.begin_pass()
    assert await source.version() == first
    repository.remote.commit({"secrets/prod.age": encrypted(f"DB_PASSWORD={canary('second')}\n")})
    assert await source.version() == first, "one look a pass"
    repository.begin_pass()
    assert await source.version() not in (first, "", None)
    assert await fetched(source) == {"DB_PASSWORD": canary("second")}
    repository.remote.commit({"secrets/prod.age": None})
    repository.begin_pass()
    assert await source.version() == ""
    assert await refused(source) == (
        "secret source sealed: infra:secrets/prod.age: there is no such file on that repository's branch; "
        "commit it there, or mend `file`"
    )


async def test_repositories_that_cannot_be_read(tmp_path: Path) -> None:
    repository = TestedRepository(tmp_path)
    repository.remote.commit({"a.age": encrypted(DOTENV), "large.age": b"#" * (MAX_FILE + 1)})

    def source(file: str = "a.age", **options: str) -> AgeSource:
        return source_of(file, repository="infra", files=repository.files(**options))

    assert "has no branch 'next'" in await refused(source(branch="next"))
    assert f"the limit is {MAX_FILE}" in await refused(source("large.age"))
    for outside in ("../a.age", "/etc/passwd", "./a.age"):
        assert "there is no such file" in await refused(source(outside))
    assert "infra.verify.signatures: tag accepts signed tags alone" in await refused(source(signatures="tag"))
    repository.take_away()
    repository.begin_pass()
    with pytest.raises(SourceDown, match=r"sealed: infra:a\.age: ") as caught:
        await source().fetch("production")
    assert caught.value.__cause__ is None
    with pytest.raises(TrueupError):
        await source().version()


def test_another_repository_under_the_same_name_is_another_question(tmp_path: Path) -> None:
    repository = TestedRepository(tmp_path)
    keys = {
        source_of("a.age", repository="infra", files=repository.files(branch=branch)).cache_key("production")
        for branch in ("main", "main", "next")
    }
    assert len(keys) == 2
