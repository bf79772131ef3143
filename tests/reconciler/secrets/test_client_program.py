"""The program that docs/python-client.md shows, run as one of its own."""

import re
import subprocess
import sys
from pathlib import Path

from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble

ROOT = Path(__file__).parents[3]


def run(program: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120
    )


def configured(double: InfisicalDouble) -> str:
    """The beginning of a program, whose variable `GIVEN` is the client's secret."""
    return (
        "import os\n"
        "from reconciler.secrets.client import *\n"
        f"config = InfisicalConfig(True, {double.url!r}, {double.project!r}, 'dev', {double.client_id!r},"
        " os.environ['GIVEN'])\n"
    )


def test_the_program_of_the_page(double: InfisicalDouble) -> None:
    page = (ROOT / "docs/python-client.md").read_text()
    [program] = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("db-password")}
    ran = run(
        program,
        INFISICAL_ENABLED="true",
        INFISICAL_HOST=double.url,
        INFISICAL_PROJECT_ID=double.project,
        INFISICAL_ENVIRONMENT="staging",
        INFISICAL_CLIENT_ID=double.client_id,
        INFISICAL_CLIENT_SECRET=double.client_secret,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "DB_PASSWORD comes from infisical, and prints as ***",
        "Secret NO_SUCH_KEY not found",
    ]
    switched_off = run(program, DB_PASSWORD=canary("db-password"))
    assert "DB_PASSWORD comes from env_file, and prints as ***" in switched_off.stdout


def test_a_program_that_forgets_to_close_ends_all_the_same(double: InfisicalDouble) -> None:
    double.secrets[double.project, "dev", "/"] = {"KEY": canary("key")}
    program = configured(double) + (
        "client = InfisicalClient(config)\nprint(client.get_secret('KEY').source)\n"
    )
    ran = run(program, GIVEN=double.client_secret)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "infisical\n", "")


def test_a_child_of_a_fork_is_told_to_make_its_own(double: InfisicalDouble) -> None:
    double.secrets[double.project, "dev", "/"] = {"KEY": canary("key")}
    program = configured(double) + (
        "client = InfisicalClient(config, environ={'KEY': 'own'})\n"
        "client.get_secret('KEY')\n"
        "if child := os.fork():\n"
        "    os.waitpid(child, 0)\n"
        "    print('parent', client.get_secret('KEY', force_refresh=True).source, flush=True)\n"
        "else:\n"
        "    print('child', client.get_secret('KEY').source, client.is_connected())\n"
        "    try:\n"
        "        client.get_secret('KEY', force_refresh=True)\n"
        "    except InfisicalConnectionError as error:\n"
        "        print(error, flush=True)\n"
        "client.close()\n"
    )
    ran = run(program, GIVEN=double.client_secret, PYTHONWARNINGS="ignore")  # newer Pythons warn of forks
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "child cache False",
        "this InfisicalClient was made before a fork, which takes no thread along; make another",
        "parent infisical",
    ]
