"""Kind `sops`: what becomes of a sops that is missing, hangs, floods, dies or talks too much."""

import os
import select
from contextlib import suppress
from pathlib import Path

import pytest
import trio.testing

from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.sops import MAX_OUTPUT
from tests.canaries import canary, may_hold
from tests.contracts.sops_tool import Sops, script_in
from tests.reconciler.secrets.test_secret_leaks import assert_silent, printed_error
from tests.world import PATIENCE

VALUE = canary("of-sops")


def scripted(tmp_path: Path, script: str) -> tuple[Sops, Path]:
    """A sops that is a script, and a file for it."""
    path = tmp_path / "a.yaml"
    path.write_text("KEY: ENC[]\n")
    return Sops(script_in(tmp_path / "bin", script), tmp_path), path


async def test_sops_is_not_installed(tmp_path: Path) -> None:
    sops, path = scripted(tmp_path, "")
    with pytest.raises(SourceRefused) as caught:
        await sops.source(path, environ={"PATH": str(tmp_path)}).fetch("production")
    assert str(caught.value) == (
        "secret source sopsed: sops is not installed on the primary; "
        "install it (https://github.com/getsops/sops) or use kind age"
    )


async def test_a_hang_ends_with_the_whole_group(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    sops, path = scripted(tmp_path, "sleep 1000 & sleep 1000")
    with pytest.raises(SourceDown, match=r"a\.yaml: sops gave no answer within 60 s; is the service"):
        await sops.source(path, environ={"SOPS_MARK": str(tmp_path)}).fetch("production")
    # What was killed may need a moment to go.
    assert all(map(has_ended, processes_with(f"SOPS_MARK={tmp_path}")))


def processes_with(variable: str) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if variable.encode() in place.read_bytes().split(b"\0"):
                found.append(int(place.parent.name))
    return found


def has_ended(process: int) -> bool:
    """Whether a process ends by itself before nobody would wait for it any longer."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        ended, _, _ = select.select([descriptor], [], [], PATIENCE)
    finally:
        os.close(descriptor)
    return bool(ended)


async def test_a_flood_is_cut_off(tmp_path: Path) -> None:
    sops, path = scripted(tmp_path, f"exec yes {VALUE}")
    with pytest.raises(SourceRefused, match=f"more than {MAX_OUTPUT} bytes decrypted; split") as caught:
        await sops.source(path).fetch("production")
    assert_silent(printed_error(caught.value))


async def test_a_sops_that_is_killed_or_cannot_start(tmp_path: Path) -> None:
    sops, path = scripted(tmp_path, "kill -9 $$")
    source = sops.source(path, environ={"AWS_SECRET_ACCESS_KEY": VALUE})
    with pytest.raises(SourceDown, match="sops was ended by signal 9") as killed:
        await source.fetch("production")
    (tmp_path / "bin" / "sops").write_text("#!/there/is/no/such/program\n")
    with pytest.raises(SourceDown, match="bin/sops cannot be started: No such file or directory") as absent:
        await source.fetch("production")
    assert_silent(printed_error(killed.value), printed_error(absent.value))


@pytest.mark.parametrize(
    "words",
    [
        "Error: dial tcp 10.0.0.1:443: connect: connection refused",
        'Post "https://kms.eu-central-1.amazonaws.com/": dial tcp: lookup kms: no such host',
        "rpc error: code = Unavailable desc = connection error",
        "context deadline exceeded",
        "Code: 503. Errors: Vault is sealed",
    ],
)
async def test_a_key_service_that_is_away_is_an_outage(tmp_path: Path, words: str) -> None:
    sops, path = scripted(tmp_path, f"echo '{words} {VALUE}' >&2; exit 128")
    with pytest.raises(SourceDown, match="sops cannot reach what keeps its key; run `sops") as caught:
        await sops.source(path).fetch("production")
    assert_silent(printed_error(caught.value))


@pytest.mark.parametrize("code", [1, 2, 25, 51, 128])
async def test_what_sops_says_is_never_shown(
    tmp_path: Path, code: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    sops, path = scripted(tmp_path, f"echo '{VALUE}'; echo 'panic: {VALUE}' >&2; exit {code}")
    source = sops.source(path, environ={"AWS_SECRET_ACCESS_KEY": VALUE})
    with pytest.raises(SourceRefused) as caught:
        await source.fetch("production")
    said = capfd.readouterr()
    assert_silent(printed_error(caught.value), caplog.text, said.out, said.err)


@pytest.mark.parametrize("output", [f"[{VALUE!r}]", VALUE, "", f'"{VALUE}"', "[" * 100_000, "null"])
async def test_output_that_is_no_map(tmp_path: Path, output: str) -> None:
    may_hold(tmp_path / "output").write_text(output)
    sops, path = scripted(tmp_path, f"cat {tmp_path}/output")
    with pytest.raises(SourceRefused, match="it does not hold a map of names to texts") as caught:
        await sops.source(path).fetch("production")
    assert_silent(printed_error(caught.value))


async def test_sops_gets_what_it_needs_of_the_environment(tmp_path: Path) -> None:
    sops, path = scripted(tmp_path, f"env > {tmp_path}/env; cat > {tmp_path}/stdin; echo '{{}}'")
    passed = {"AWS_PROFILE": "x", "AZURE_X": "x", "GOOGLE_X": "x", "VAULT_TOKEN": "x", "GNUPGHOME": "/x"}
    kept_back = {"GH_PAT": VALUE, "INFISICAL_CLIENT_SECRET": VALUE, "LD_PRELOAD": "", "AWSX": VALUE}
    source = sops.source(path, environ={**passed, **kept_back})
    assert await source.fetch("production") == {}
    lines = (tmp_path / "env").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines)
    for of_the_shell in ("PWD", "_", "SHLVL", "OLDPWD"):
        found.pop(of_the_shell, None)
    assert found == {**sops.environ, **passed, "SOPS_DISABLE_VERSION_CHECK": "1"}
    assert (tmp_path / "stdin").read_bytes() == path.read_bytes()
