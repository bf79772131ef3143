"""What trueup relies on in sops, against the double and against a real one.

A real sops is taken from `PATH`, or from where TRUEUP_TEST_SOPS says it is. Without one there is nothing to
skip: the suite is about the double alone then.
"""

from collections.abc import Mapping
from pathlib import Path

import pyrage
import pytest

from reconciler.secrets.errors import SourceRefused
from reconciler.secrets.sops import SopsSource
from tests.canaries import canary
from tests.contracts.sops_tool import REAL, Sops, double_in, real_in
from tests.reconciler.secrets.repository_files import TestedRepository
from tests.reconciler.secrets.test_secret_leaks import assert_silent, printed_error

VALUE = canary("sops")


@pytest.fixture(params=["double", "real"] if REAL is not None else ["double"])
def sops(request: pytest.FixtureRequest, tmp_path: Path) -> Sops:
    home = tmp_path / "home"
    home.mkdir()
    make = double_in if request.param == "double" else real_in
    return Sops(make(tmp_path / "bin"), home)


async def fetched(source: SopsSource) -> Mapping[str, str]:
    return {key: value.reveal() for key, value in (await source.fetch("production")).items()}


async def refused(source: SopsSource) -> str:
    with pytest.raises(SourceRefused) as caught:
        await source.fetch("production")
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert_silent(printed_error(caught.value))
    return str(caught.value)


def written(sops: Sops, tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_bytes(sops.encrypt(name, text))
    return path


FILES = {
    "a.yaml": f'KEY: {VALUE}\nLINES: |\n  one\n  two\nNUMBER: "012"\nEMPTY: ""\n',
    "a.yml": f'{{KEY: {VALUE}, LINES: "one\\ntwo\\n", NUMBER: "012", EMPTY: ""}}\n',
    "a.json": f'{{"KEY": "{VALUE}", "LINES": "one\\ntwo\\n", "NUMBER": "012", "EMPTY": ""}}\n',
    "a.env": f"KEY={VALUE}\nLINES=one\\ntwo\\n\nNUMBER=012\nEMPTY=\n",
}


@pytest.mark.parametrize("name", FILES)
async def test_every_kind_of_file(sops: Sops, tmp_path: Path, name: str) -> None:
    assert await fetched(sops.source(written(sops, tmp_path, name, FILES[name]))) == {
        "KEY": VALUE,
        "LINES": "one\ntwo\n",
        "NUMBER": "012",
        "EMPTY": "",
    }


async def test_an_ini_file_without_sections(sops: Sops, tmp_path: Path) -> None:
    source = sops.source(written(sops, tmp_path, "a.ini", f"KEY = {VALUE}\nOTHER = 1\n"))
    assert await fetched(source) == {"KEY": VALUE, "OTHER": "1"}
    source = sops.source(written(sops, tmp_path, "b.ini", f"[db]\nKEY = {VALUE}\n"))
    assert "b.ini: it has sections; one flat map of names is needed; remove them" in await refused(source)


async def test_a_file_in_a_repository(sops: Sops, tmp_path: Path) -> None:
    repository = TestedRepository(tmp_path)
    repository.remote.commit({"secrets/a.yaml": sops.encrypt("a.yaml", f"KEY: {VALUE}\n")})
    source = sops.source("secrets/a.yaml", repository="infra", files=repository.files())
    assert await fetched(source) == {"KEY": VALUE}
    missing = sops.source("secrets/b.yaml", repository="infra", files=repository.files())
    assert "infra:secrets/b.yaml: there is no such file" in await refused(missing)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"A: x\nDB: {{PASSWORD: {VALUE}}}\n", "DB: a text is needed, not a map or a list"),
        (f"DB: [{VALUE}]\n", "DB: a text is needed, not a map or a list"),
        ("PORT: 5432\n", "PORT: a text is needed, not a number, a boolean or nothing; quote it"),
        ("FLAG: true\n", "FLAG: a text is needed, not a number, a boolean or nothing"),
        ("NONE: null\n", "NONE: a text is needed, not a number, a boolean or nothing"),
    ],
)
async def test_only_a_flat_map_of_texts(sops: Sops, tmp_path: Path, text: str, problem: str) -> None:
    path = written(sops, tmp_path, "a.yaml", text)
    assert (await refused(sops.source(path))).startswith(f"secret source sopsed: {path}: {problem}")


async def test_a_key_file(sops: Sops, tmp_path: Path) -> None:
    path = written(sops, tmp_path, "a.yaml", f"KEY: {VALUE}\n")
    key = tmp_path / "keys.txt"
    key.write_text(f"# created: today\n{sops.key}\n")
    source = sops.source(path, environ={"SOPS_AGE_KEY": "", "SOPS_AGE_KEY_FILE": str(key)})
    assert await fetched(source) == {"KEY": VALUE}


async def test_no_key_that_opens_it(sops: Sops, tmp_path: Path) -> None:
    path = written(sops, tmp_path, "a.yaml", f"KEY: {VALUE}\n")
    for key in (str(pyrage.x25519.Identity.generate()), ""):
        said = await refused(sops.source(path, environ={"SOPS_AGE_KEY": key}))
        assert said.startswith(f"secret source sopsed: {path}: sops has no key that opens it; give the")


async def test_a_file_that_something_else_changed(sops: Sops, tmp_path: Path) -> None:
    path = written(sops, tmp_path, "a.yaml", f"KEY: {VALUE}\nOTHER: {VALUE}\n")
    first, _, rest = path.read_text().partition("\n")
    assert first.startswith("KEY: ENC[")
    path.write_text(rest)
    assert f"{path}: it was changed by something else than sops (MAC mismatch)" in await refused(
        sops.source(path)
    )
    path.write_text(f"{first[:-40]}{'A' * 8}{first[-32:]}\n{rest}")
    assert f"{path}: it is damaged: a value in it cannot be decrypted" in await refused(sops.source(path))


@pytest.mark.parametrize("text", ["KEY: VALUE\n", "", "# nothing\n"])
async def test_a_file_that_sops_did_not_encrypt(sops: Sops, tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert f"{path}: it is not a file that sops encrypted; encrypt it: sops encrypt" in await refused(
        sops.source(path)
    )


async def test_a_file_that_is_no_yaml(sops: Sops, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("{{{: b\n")
    assert f"{path}: sops cannot read it (exit code 1); run `sops decrypt {path}`" in await refused(
        sops.source(path)
    )
