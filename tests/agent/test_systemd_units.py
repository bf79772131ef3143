"""The units under examples/systemd: systemd reads them without a word, and finds them well locked down."""

import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from reconciler.install.plan import Wanted
from reconciler.install.unit import TEMPLATE, render_unit
from reconciler.keys import MasterKey
from reconciler.settings import load_settings
from tests.canaries import canary, may_hold

UNITS = Path(__file__).parents[2] / "examples/systemd"
MOST_EXPOSED = {"trueup-agent.service": 25, "trueup-reconcile.service": 20, "trueup.service": 20}
"""Tenths of what `systemd-analyze security` calls exposure; 50 is "medium"."""

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that is there in place of the one that pip would have put there."""
    for unit in UNITS.iterdir():
        text = re.sub(
            r"^ExecStart=/opt/trueup/bin/\S+", f"ExecStart={sys.executable}", unit.read_text(), flags=re.M
        )
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_units_are_valid(units: Path) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", *map(str, sorted(units.iterdir())))
    assert done.returncode == 0, done.stderr
    assert str(units) not in done.stderr


@pytest.mark.parametrize("name", sorted(MOST_EXPOSED))
def test_the_services_are_locked_down(units: Path, name: str) -> None:
    done = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED[name]}", str(units / name))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_agent_that_is_installed_over_ssh_runs_under_the_same_unit(units: Path) -> None:
    assert files("reconciler.install").joinpath(TEMPLATE).read_bytes() == (UNITS / TEMPLATE).read_bytes()
    roots = ("/srv", "/home/app/www")
    wanted = Wanted(node="web-1", primaries=(), pin="", roots=roots, user="app", prefix="/opt/t")
    (units / TEMPLATE).write_text(render_unit((UNITS / TEMPLATE).read_text(), wanted))
    limit = f"--threshold={MOST_EXPOSED[TEMPLATE]}"
    done = analyze("security", "--offline=yes", limit, str(units / TEMPLATE))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_primary_gets_its_secrets_as_credentials(tmp_path: Path) -> None:
    """Of each pair of lines, those in comments too, the variable is a setting and its file a credential."""
    text = re.sub(r"^#(\w+=)", r"\1", (UNITS / "trueup.service").read_text(), flags=re.M)
    credentials = dict(re.findall(r"^LoadCredential=([^:\n]+):(/\S+)$", text, flags=re.M))
    variables = dict(re.findall(r"^Environment=(\w+)=%d/(\S+)$", text, flags=re.M))
    assert sorted(credentials) == sorted(variables.values())
    key = MasterKey.generate().to_text()
    for name in credentials:
        may_hold(tmp_path / name).write_text(key if name == "master-key" else canary(name))
    files = {name: str(tmp_path / file) for name, file in variables.items()}
    settings = load_settings({"HOME": "/", **files})
    assert settings.master_key is not None and settings.master_key.reveal() == key
    assert settings.deploy_secret is not None and settings.deploy_secret.reveal() == canary("deploy-secret")
    assert {"WEBHOOK_SECRET_FILE", "INFISICAL_WEBHOOK_SECRET_FILE", "TRUEUP_API_TOKENS_FILE"} <= set(files)


def test_what_the_agent_may_do_is_what_it_needs() -> None:
    text = (UNITS / "trueup-agent.service").read_text()
    assert "\nCapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID\n" in text
    assert "\nProtectSystem=strict\n" in text
    assert "\nRestrictSUIDSGID=" not in text
