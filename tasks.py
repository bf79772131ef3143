"""What one does in a checkout of trueup.

`python3 tasks.py VERB` needs nothing but Python 3.11 or later with venv, git and a package index: it makes
the environment `.venv` next to this file from a lock file and works in there. `python3 tasks.py --help`
lists the verbs.

`invoke VERB`, inside that environment or any other with trueup's extra `reconciler`, offers trueup's own
verbs as tasks, and `bench`; `invoke --list` shows them.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11")
LOCKS = {
    "dev": ("dev",),
    "reconciler": ("reconciler", "dev"),
}  # an environment, and which of them will do for it


class Refused(Exception):
    """This machine lacks something; the message is one line and says what to do."""


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a command at the top of the checkout; the first that fails ends everything with its exit code."""
    code = subprocess.run([str(part) for part in command], cwd=ROOT, env=env).returncode
    if code:
        sys.exit(code)


# The environment: made once, then reused for as long as what it was made from stays the same.


def use_supported_python() -> None:
    """Go on as another process where this Python is too old and the machine has a newer one."""
    if sys.version_info < (3, 11):  # noqa: UP036 - people start this file with whatever `python3` is
        for name in PYTHONS:
            if found := shutil.which(name):
                os.execv(found, [found, *sys.argv])
        raise Refused(
            "this needs Python 3.11 or later: apt install python3.11 python3.11-venv, or see python.org"
        )


def ensure_environment(kind: str) -> None:
    """Make `.venv` hold what `requirements/{kind}.lock` pins, and this checkout as an editable install."""
    stamp = VENV / "made-from"
    made_from = stamp.read_text() if stamp.exists() and _starts(VENV) else ""
    if made_from in [_fingerprint(enough) for enough in LOCKS[kind]]:
        return
    print(f"Setting up {VENV.name} from requirements/{kind}.lock; this takes a minute, once.", flush=True)
    if not _starts(VENV):
        make_venv(VENV)
    stamp.unlink(missing_ok=True)
    pip(VENV, "install", "--no-deps", "--require-hashes", "--requirement", f"requirements/{kind}.lock")
    pip(VENV, "install", "--no-deps", "--no-build-isolation", "--editable", ".")
    stamp.write_text(_fingerprint(kind))


def make_venv(where: Path) -> None:
    """A fresh virtual environment with pip, in place of whatever is there."""
    if not (importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv")):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise Refused(f"this Python cannot make virtual environments: apt install python{version}-venv")
    run(sys.executable, "-m", "venv", "--clear", where)


def pip(where: Path, *arguments: str | Path) -> None:
    """Run an environment's pip; indexes, certificates and proxies are those of the user's own settings."""
    options = ["--disable-pip-version-check", "--no-input", "-qq"]
    run(where / "bin/python", "-m", "pip", arguments[0], *options, *arguments[1:])


def _starts(where: Path) -> bool:
    """Whether an environment's Python is there, starts and is new enough: the system's may have gone."""
    if not (where / "bin/python").exists():
        return False
    question = "import pip, sys; sys.exit(sys.version_info < (3, 11))"
    return not subprocess.run([str(where / "bin/python"), "-c", question], capture_output=True).returncode


def _fingerprint(kind: str) -> str:
    digest = hashlib.sha256(bytes(ROOT))  # a checkout that was moved left its old path in `.venv`
    for name in (f"requirements/{kind}.lock", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return f"{kind} {digest.hexdigest()}\n"


# The workshop's verbs.


def demo(arguments: Sequence[str]) -> None:
    """two passes from git to a host and back, on this machine alone; leaves nothing running"""
    ensure_environment("reconciler")
    run(VENV / "bin/trueup", "demo", *arguments)


def test(arguments: Sequence[str]) -> None:
    """the tests; arguments go to pytest"""
    ensure_environment("dev")
    run(VENV / "bin/python", "-m", "pytest", "-n", "2", *arguments)


def lint(arguments: Sequence[str]) -> None:
    """ruff's rules, its format, and the import rules; --fix mends what can be mended"""
    ensure_environment("dev")
    mend = "--fix" in arguments
    run(VENV / "bin/ruff", "check", *(["--fix"] if mend else []))
    run(VENV / "bin/ruff", "format", *([] if mend else ["--check"]))
    run(VENV / "bin/lint-imports", "--no-cache")


def types(arguments: Sequence[str]) -> None:
    """mypy, strict"""
    ensure_environment("dev")
    run(VENV / "bin/mypy", *arguments)


def agent_alone(arguments: Sequence[str]) -> None:
    """the agent in an environment with its own four dependencies only, installed from a built wheel"""
    ensure_environment("dev")
    alone, wheels = ROOT / "build/agent-alone", ROOT / "build/wheels"
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would pack what an older build left there
    pip(VENV, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, ".")
    make_venv(alone)
    pip(alone, "install", "--no-deps", "--require-hashes", "--requirement", "requirements/agent.lock")
    pip(alone, "install", "--no-deps", "--no-index", *wheels.glob("*.whl"))
    environment = {**os.environ, "TRUEUP_TEST_AGENT_PYTHON": str(alone / "bin/python")}
    tests = ["tests/test_agent_alone.py", "tests/test_one_commit.py"]
    run(VENV / "bin/python", "-m", "pytest", *tests, *arguments, env=environment)


def ci(arguments: Sequence[str]) -> None:
    """everything that must pass before a change lands"""
    lint([])
    types([])
    agent_alone([])
    demo([])
    test(arguments)


def bench(arguments: Sequence[str]) -> None:
    """trueup against rsync over ssh, and one pass over 1,000 services; --quick for a first look"""
    ensure_environment("dev")
    run(VENV / "bin/python", "-m", "tests.bench", *arguments)


def fuzz(arguments: Sequence[str]) -> None:
    """bytes by chance at the wire's decoder, --seconds long; what fails is kept and played again by a test"""
    ensure_environment("dev")
    run(VENV / "bin/python", "-m", "tests.fuzz.wire", *arguments)


def docs(arguments: Sequence[str]) -> None:
    """the documentation as a site in build/site, strictly; --serve shows it and follows your edits"""
    ensure_environment("dev")
    source = ROOT / "build/site-source"
    source.mkdir(parents=True, exist_ok=True)
    for name in ("README.md", "docs", "examples"):
        (source / name).unlink(missing_ok=True)
        (source / name).symlink_to(ROOT / name)
    verb = ["serve", "--watch", ROOT / "docs"] if "--serve" in arguments else ["build"]
    others = [argument for argument in arguments if argument != "--serve"]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # docs/decisions/0150 says what is made of that
    run(VENV / "bin/mkdocs", *verb, "--strict", "--config-file", "docs/mkdocs.yml", *others, env=quiet)


def lock(arguments: Sequence[str]) -> None:
    """pin the dependencies anew in requirements/; --upgrade takes the newest of each"""
    ensure_environment("dev")
    if not (VENV / "bin/uv").exists():
        pip(VENV, "install", "uv")
    parts = {
        "agent": [],
        "reconciler": ["--extra=reconciler", "--group=build", "--constraint=requirements/agent.lock"],
        "dev": [
            "--extra=reconciler",
            "--group=build",
            "--group=dev",
            "--constraint=requirements/reconciler.lock",
        ],
    }
    for kind, options in parts.items():
        fixed = ["--universal", "--python-version=3.11", "--generate-hashes", "--no-header", "--quiet"]
        output = f"--output-file=requirements/{kind}.lock"
        run(VENV / "bin/uv", "pip", "compile", "pyproject.toml", *options, *fixed, output, *arguments)
    shutil.copy(ROOT / "requirements/agent.lock", ROOT / "reconciler/install/agent.lock")  # what a host gets


VERBS: tuple[Callable[[Sequence[str]], None], ...] = (
    *(demo, test, lint, types, agent_alone, ci, bench, fuzz, docs, lock),
)


def main(arguments: list[str]) -> int:
    verbs = {verb.__name__.replace("_", "-"): verb for verb in VERBS}
    listing = "\n".join(f"  {name:12} {verb.__doc__}" for name, verb in verbs.items())
    parser = argparse.ArgumentParser(
        "tasks.py", epilog=listing, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("verb", choices=verbs, metavar="VERB")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="go to what the verb runs")
    chosen = parser.parse_args(arguments)
    try:
        use_supported_python()
        verbs[chosen.verb](chosen.arguments)
    except Refused as refused:
        print(f"tasks.py: {refused}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


# trueup's own verbs, for people who live in `invoke`. Only invoke imports this file, so that it is there.

from invoke.context import Context  # noqa: E402
from invoke.tasks import task  # noqa: E402

from reconciler.invoke_operations import *  # noqa: E402, F403 - those that keep a primary in order
from reconciler.invoke_releases import *  # noqa: E402, F403 - the tasks with which operators decide
from reconciler.invoke_releases import trueup  # noqa: E402
from reconciler.invoke_watching import *  # noqa: E402, F403 - those with which one watches a primary


@task
def init(context: Context, directory: str = ".") -> None:
    """Write a commented starter spec, and make the master key if there is none."""
    trueup(context, "init", directory)


@task
def validate(context: Context, spec: str = ".") -> None:
    """Check a spec file and all that it includes."""
    trueup(context, "validate", spec)


@task
def plan(context: Context, output: str = "table", detailed_exitcode: bool = False, files: str = "") -> None:
    """Show what a pass would do, and why; with --files what a project's sync would do to each file."""
    options = [f"--files={files}"] if files else []
    trueup(context, "plan", "--output", output, *options, *(["--detailed-exitcode"] * detailed_exitcode))


@task(iterable=["force"])
def reconcile(context: Context, force: list[str], wait_agents: str = "60s") -> None:
    """Run one pass, wait for its steps, and exit."""
    trueup(context, "reconcile", "--wait-agents", wait_agents, *(f"--force={name}" for name in force))


@task
def serve(context: Context) -> None:
    """Go on running: passes at intervals and on request, agents, webhooks."""
    trueup(context, "serve")


@task(name="demo")
def demo_task(context: Context) -> None:
    """Run two passes over a small project on this machine alone."""
    trueup(context, "demo")


@task(name="bench", iterable=["only"])
def bench_task(
    context: Context,  # noqa: ARG001 - invoke hands it to every task
    only: list[str],
    quick: bool = False,
    write: bool = False,
    runs: int = 0,
    directory: str = "",
) -> None:
    """Measure against rsync and Syncthing, in a checkout; `python3 tasks.py bench --help` has all options."""
    options = [*(["--quick"] if quick else []), *(["--write"] if write else [])]
    options += [*([f"--runs={runs}"] if runs else []), *([f"--directory={directory}"] if directory else [])]
    bench([*options, *(["--only", *only] if only else [])])


@task
def key_new(context: Context) -> None:
    """Make the master key in the state directory."""
    trueup(context, "key", "new")


@task
def key_show(context: Context) -> None:
    """Show the key's id and the fingerprints that derive from it."""
    trueup(context, "key", "show")


@task(iterable=["label", "primary"])
def node_add(
    context: Context, name: str, label: list[str], primary: list[str], dry_run: bool = False
) -> None:
    """Make a node's token, commit its public half to the spec, and print the command to join."""
    options = [f"--label={pair}" for pair in label] + [f"--primary={address}" for address in primary]
    trueup(context, "node", "add", name, *options, *(["--dry-run"] if dry_run else []))


@task(iterable=["primary"])
def node_rotate_token(context: Context, name: str, primary: list[str]) -> None:
    """Give a node a new token in the spec, and print the command to join with it."""
    trueup(context, "node", "rotate-token", name, *(f"--primary={address}" for address in primary))


@task
def node_repair(context: Context, name: str) -> None:
    """Forget the certificate of a node, so that its host can join again with its token."""
    trueup(context, "node", "repair", name)


@task
def node_revoke(context: Context, name: str, reason: str = "") -> None:
    """Take a node's token back: its agent is disconnected, whatever the spec says."""
    trueup(context, "node", "revoke", name, "--reason", reason)


@task
def notify_test(context: Context, place: str = "") -> None:
    """Send a message to each channel of the spec, or to the one at a place, counted from 0."""
    trueup(context, "notify", "test", *([place] if place else []))


@task
def node_test(context: Context, name: str, output: str = "table") -> None:
    """Ask a running primary whether a node's agent is connected, and how fast it answers."""
    trueup(context, "node", "test", name, "--output", output)


@task
def secrets_list(context: Context, output: str = "table", recorded: bool = False) -> None:
    """Show each secret source: what it serves, how fresh that is, and what uses it."""
    trueup(context, "secrets", "list", "--output", output, *(["--recorded"] if recorded else []))


@task(iterable=["key"])
def secrets_check(context: Context, repo: str, key: list[str], dry_run: bool = False) -> None:
    """Have secrets that a GitHub repository lacks exported to it."""
    trueup(context, "secrets", "check", repo, *key, *(["--dry-run"] if dry_run else []))


@task
def secrets_sync(context: Context, source: str = "") -> None:
    """Ask a secret source itself now, or all, whatever is cached."""
    trueup(context, "secrets", "sync", *([source] if source else []))


@task
def secrets_clear_cache(context: Context, source: str = "") -> None:
    """Forget what was fetched from a secret source, or from all."""
    trueup(context, "secrets", "clear-cache", *([source] if source else []))


@task
def secrets_diff(context: Context, source: str = "", output: str = "table") -> None:
    """Show which keys changed since the last pass, and what that would touch."""
    trueup(context, "secrets", "diff", "--output", output, *([source] if source else []))


@task
def secrets_audit(context: Context, name: str = "", limit: int = 50, output: str = "table") -> None:
    """Show who got which secret and when, the newest first."""
    trueup(context, "secrets", "audit", f"-n{limit}", "--output", output, *([name] if name else []))


@task
def token_new(context: Context, name: str, role: str = "read", expires: str = "") -> None:
    """Make a token for the API, and print it once."""
    trueup(context, "token", "new", name, "--role", role, *(["--expires", expires] if expires else []))


@task
def token_list(context: Context, output: str = "table") -> None:
    """List the tokens of the API: names, roles, when they end."""
    trueup(context, "token", "list", "--output", output)


@task
def node_list(context: Context, output: str = "table") -> None:
    """List the nodes of the spec and what the status files know of them."""
    trueup(context, "node", "list", "--output", output)
