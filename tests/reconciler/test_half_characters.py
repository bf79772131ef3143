"""Half a surrogate pair, which has no UTF-8 form: refused by the name of who holds it, and never in an error.

JSON can write it (`"\\ud800"`), and Python puts it where a variable of the process is not UTF-8.
"""

import base64
from pathlib import Path

import pytest
from nacl.public import PrivateKey

from reconciler.errors import SettingsError
from reconciler.github.client import PublicKey, sealed
from reconciler.github.errors import GitHubRefused
from reconciler.hashing import fingerprint
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.errors import SourceRefused
from reconciler.secrets.mask import Masker
from reconciler.secrets.source import SourceContext
from reconciler.secrets.values import Plain, Secret, is_text
from reconciler.settings import read_secret
from reconciler.spec.model import EnvCredential
from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import (
    context_for,
    env_file,
    environ,
    infisical,
    store_of,
    write_env_file,
)
from tests.reconciler.secrets.test_secret_leaks import assert_silent, printed_error

MARK = canary("half")
HALVES = [f"{MARK}\ud800", f"\udcff{MARK}", f"{MARK[:9]}\udfff{MARK}"]


def said(error: BaseException) -> str:
    """Its words, checked to show no value, nor to do so with all that it is chained to."""
    assert_silent(printed_error(error))
    return str(error)


@pytest.mark.parametrize("value", HALVES, ids=["end", "start", "inside"])
async def test_a_source_with_such_a_value_is_refused_and_a_fallback_serves(
    value: str, tmp_path: Path
) -> None:
    with InfisicalDouble() as double:
        double.secrets[double.project, "prod", "/"] = {"FINE": "x", "BROKEN": value}
        spare = write_env_file(tmp_path / "spare.env", "FINE=spare\n")
        context = context_for(double, BROKEN=value)
        safe = infisical(double, "safe", fallback=("local",))
        store = store_of(context, infisical(double), environ("BROKEN"), env_file(spare), safe)
        for source in ("prod", "own"):
            with pytest.raises(SourceRefused) as caught:
                await store.values(source, "production")
            assert f"secret source {source}: the value of BROKEN is not valid text" in said(caught.value)
        assert (await store.values("safe", "production"))["FINE"].value == Secret("spare")


async def test_a_name_of_that_kind_is_refused_too() -> None:
    with InfisicalDouble() as double:
        double.secrets[double.project, "prod", "/"] = {"A\ud800": "x"}
        with pytest.raises(SourceRefused, match=r"the name 'A\\ud800' is not valid text"):
            await store_of(context_for(double), infisical(double)).values("prod", "production")


@pytest.mark.parametrize("value", HALVES, ids=["end", "start", "inside"])
async def test_a_credential_of_that_kind_is_refused(value: str) -> None:
    context = SourceContext(Credentials({"TOKEN": value}))
    with pytest.raises(SettingsError) as caught:
        await context.credentials.read(EnvCredential(name="TOKEN"), "")
    assert said(caught.value) == "the variable TOKEN is not UTF-8 text"
    with pytest.raises(SettingsError) as caught:
        read_secret(Plain({"GH_PAT": value}), "GH_PAT")
    assert said(caught.value) == "GH_PAT is not UTF-8 text"


@pytest.mark.parametrize("value", HALVES, ids=["end", "start", "inside"])
def test_nothing_that_works_on_values_fails_with_one(value: str) -> None:
    assert not is_text(value)
    marks = {fingerprint(b"k" * 32, target="t", name="n", value=each) for each in (*HALVES, MARK)}
    assert len(marks) == len(HALVES) + 1
    hidden = Masker([Secret(value)])
    assert hidden.mask(f"a {value} b") == "a *** b"
    encoded = base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()
    if "\udcff" not in value:  # which stands for a byte that is no text
        assert MARK not in hidden.mask(encoded) != encoded
    key = PublicKey("1", bytes(PrivateKey.generate().public_key))
    with pytest.raises(GitHubRefused) as caught:
        sealed(Secret(value), key, "acme/app: writing KEY")
    assert said(caught.value).startswith("acme/app: writing KEY: the value is not valid text")


@pytest.mark.parametrize("text", ["", "plain", "é", "\U0001f600", "a\0b"])
def test_what_is_text(text: str) -> None:
    assert is_text(text)
