"""A pass over many services with nothing changed: the primary's own cost, without a host or a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.report import Measurement

ROOT = Path(__file__).parents[2]

SPEC_HEAD = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
environments:
  production:
    release: {{from: main, cut: external}}
secret_sources:
  local: {{kind: env_file, file: "{secrets}"}}
services:
"""
SERVICE = """\
  service-{number:04}:
    repository: app
    paths: ["service-{number:04}/**"]
    secrets: [local]
    env: {{LOG_LEVEL: info}}
    deploy: {{kind: invoke, task: deploy}}
    environments: [production]
"""


def bench_pass(where: Path, *, services: int, runs: int) -> list[Measurement]:
    """Deploy `services` once with a task that does nothing, then measure passes that find nothing to do.

    Gives three measurements: a pass in a primary that is running, as `trueup serve` makes it; `git ls-remote`
    of both repositories, the part of it that is not ours; and `trueup reconcile` from its start to its exit.
    """
    environment = make_world(where, services)
    trueup = [sys.executable, "-m", "reconciler"]
    run_command([*trueup, "key", "new"], environment)
    run_command([*trueup, "reconcile"], environment)
    inside = run_command([sys.executable, "-m", "tests.bench.running_primary", str(runs)], environment)
    told: dict[str, Any] = json.loads(inside.splitlines()[-1])
    if told["steps"]:
        raise RuntimeError(f"a pass that should find nothing to do has {told['steps']} steps")
    work = f"pass, {services} services, nothing changed"
    running = Measurement(f"{work}, running primary", "trueup", told["seconds"])
    running.note_memory({"primary": told["peak_rss"]})
    listing = Measurement(f"{work}, of it ls-remote", "git")
    command = Measurement(f"{work}, the command", "trueup")
    for _ in range(runs):
        begin = time.perf_counter()
        for name in ("app", "spec"):
            run_command(["git", "ls-remote", "--quiet", str(where / f"{name}.git")], environment)
        listing.seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        run_command([*trueup, "reconcile"], environment)
        command.seconds.append(time.perf_counter() - begin)
    return [running, listing, command]


def make_world(where: Path, services: int) -> dict[str, str]:
    """Bare repositories for the application and the spec, a secret, and the settings of a primary."""
    where.mkdir()
    secrets = where / "secrets.env"
    secrets.touch(mode=0o600)
    secrets.write_text("DB_PASSWORD=measured\n")
    # One file each: the first deploys check the whole repository out, once for every service.
    app = {f"service-{number:04}/compose.yaml": f"# {number}\n" for number in range(services)}
    app["tasks.py"] = "# TRUEUP_INVOKE_COMMAND stands for what would run it.\n"
    spec = SPEC_HEAD.format(app=where / "app.git", secrets=secrets)
    spec += "".join(SERVICE.format(number=number) for number in range(services))
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(where),
        "PYTHONPATH": str(ROOT),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Bench",
        "GIT_AUTHOR_EMAIL": "bench@localhost",
        "GIT_COMMITTER_NAME": "Bench",
        "GIT_COMMITTER_EMAIL": "bench@localhost",
        "TRUEUP_SPEC_REPO": str(where / "spec.git"),
        "TRUEUP_STATE_DIR": str(where / "state"),
        "TRUEUP_ALLOW_LOCAL_REPOS": "1",
        "TRUEUP_INVOKE_COMMAND": "true",
    }
    for name, files in (("app", app), ("spec", {"trueup.yaml": spec})):
        bare, work = where / f"{name}.git", where / name
        run_command(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(bare)], environment)
        run_command(["git", "init", "--quiet", "--initial-branch=main", str(work)], environment)
        for path, text in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(text)
        git = ["git", "-C", str(work)]
        run_command([*git, "add", "--all"], environment)
        run_command([*git, "commit", "--quiet", "--message=Measured"], environment)
        run_command([*git, "tag", "--annotate", "--message=First", "v1.0.0"], environment)
        run_command([*git, "push", "--quiet", str(bare), "main", "v1.0.0"], environment)
    return environment


def run_command(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
