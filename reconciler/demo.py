"""`trueup demo`: the whole way of two commits on this machine alone, with the real commands.

Everything lives in one temporary directory and on loopback; nothing is left behind or left running.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from reconciler.errors import TrueupError

SPEC = """\
version: 1
repositories:
  app: {url: "%(app)s", branch: main}
environments:
  staging:
    release: {from: main, cut: external}
secret_sources:
  local: {kind: env_file, file: "%(secrets)s"}
services:
  greeter:
    repository: app
    paths: ["greeter/**", tasks.py]
    secrets: [local]
    env: {LOG_LEVEL: info}
    deploy: {kind: invoke, task: greet}
    environments: [staging]
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      strategy: mirror
      nodes:
        - {node_id: web-1, target_path: "%(target)s"}
      files:
        - {path: .env, format: dotenv, mode: "0600", secrets: [local]}
nodes: {}
"""

TASKS = '''\
import os
from pathlib import Path

from invoke import task


@task
def greet(c):
    """Stands for whatever brings your service up."""
    print(f"deploying {os.environ['TRUEUP_TAG']}; the password reads {os.environ['DB_PASSWORD']}")
    Path(os.environ["DEMO_DEPLOYED"]).write_text(Path("greeter/greeting.txt").read_text())
'''

PAGES = {"site/index.html": "<h1>Hello from git</h1>\n", "site/about/index.html": "<p>About us</p>\n"}


class DemoFailed(TrueupError):
    """A command of the demo ended otherwise than it should."""

    reason = "DemoFailed"


def run_demo() -> None:
    """Run the demo; raises DemoFailed with the command that did not do what it should."""
    with tempfile.TemporaryDirectory(prefix="trueup-demo-") as name:
        root = Path(name).resolve()
        demo = _Demo(root)
        demo.heading("A spec repository, a small project, and a key")
        demo.make_repositories()
        demo.trueup("key", "new")
        demo.heading("A node: its public key is committed to the spec, its token is in the join command")
        join = demo.add_node()
        demo.heading("What a first pass will do")
        demo.trueup("plan")
        demo.heading("The first pass; an agent joins and runs as a process of its own")
        with demo.agent(join):
            demo.heading("What is on the host now, and what git says about it")
            demo.show_tree()
            demo.trueup("get")
            demo.show_status_file("services/staging/greeter.yaml")
            demo.heading("A second look finds nothing to do")
            demo.trueup("plan", "--detailed-exitcode")
            demo.heading("One file changes in git")
            demo.commit("app", {"site/index.html": "<h1>Hello again from git</h1>\n"}, "Change the greeting")
            demo.trueup("plan", "--detailed-exitcode", expect=2)
            demo.heading("The second pass: only that moves")
            demo.trueup("reconcile")
            demo.show_tree()
            demo.trueup("plan", "--detailed-exitcode")
        demo.heading("Done; the agent has ended and the directory is removed")


class _Demo:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.target = root / "host" / "srv" / "site"
        self.deployed = root / "host" / "greeting-deployed.txt"
        self.target.parent.mkdir(parents=True)
        port = _free_port()
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(root / "home"),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "TRUEUP_SPEC_REPO": str(root / "spec.git"),
            "TRUEUP_STATE_DIR": str(root / "state"),
            "TRUEUP_ALLOW_LOCAL_REPOS": "1",
            "SYNC_TCP_ADDR": f"127.0.0.1:{port}",
        }
        self.agent_config = root / "host" / "agent.toml"

    def heading(self, text: str) -> None:
        click.secho(f"\n== {text}", bold=True)

    # --- git ---

    def make_repositories(self) -> None:
        secrets = self.root / "secrets.env"
        secrets.touch(mode=0o600)
        secrets.write_text("DB_PASSWORD='correct horse battery staple'\n")
        for name in ("app", "spec"):
            self._git("init", "-q", "--bare", "-b", "main", str(self.root / f"{name}.git"))
            self._git("init", "-q", "-b", "main", str(self.root / name))
            self._git("-C", str(self.root / name), "remote", "add", "origin", str(self.root / f"{name}.git"))
        tasks = TASKS.replace('os.environ["DEMO_DEPLOYED"]', repr(str(self.deployed)))
        self.commit("app", {**PAGES, "tasks.py": tasks, "greeter/greeting.txt": "hello\n"}, "A small project")
        self._git("-C", str(self.root / "app"), "tag", "-a", "v1.0.0", "-m", "First release")
        self._git("-C", str(self.root / "app"), "push", "-q", "origin", "v1.0.0")
        spec = SPEC % {"app": self.root / "app.git", "secrets": secrets, "target": self.target}
        self.commit("spec", {"trueup.yaml": spec}, "What we want")

    def commit(self, repository: str, files: dict[str, str], message: str) -> None:
        checkout = self.root / repository
        for path, text in files.items():
            (checkout / path).parent.mkdir(parents=True, exist_ok=True)
            (checkout / path).write_text(text)
        self._git("-C", str(checkout), "add", "-A")
        self._git("-C", str(checkout), "commit", "-q", "-m", message)
        self._git("-C", str(checkout), "push", "-q", "origin", "HEAD:main")

    def _git(self, *arguments: str) -> None:
        identity = [
            "-c",
            "user.name=Demo",
            "-c",
            "user.email=demo@localhost",
            "-c",
            "init.defaultBranch=main",
        ]
        # Without a pager: on a terminal it would wait for somebody to leave it.
        command = ["git", "--no-pager", *identity, *arguments]
        if subprocess.run(command, check=False, env=self.environment).returncode:
            raise DemoFailed(f"`git {shlex.join(arguments)}` failed", hint="the demo needs git 2.30 or later")

    # --- commands ---

    def trueup(self, *arguments: str, expect: int = 0) -> str:
        """Run a command as a user would, its output shown; returns what it printed."""
        click.secho("$ trueup " + shlex.join(arguments), fg="cyan")
        done = subprocess.run(
            [sys.executable, "-m", "reconciler", *arguments],
            env=self.environment,
            cwd=self.root,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        click.echo(done.stdout, nl=False)
        if done.returncode != expect:
            raise DemoFailed(f"`trueup {shlex.join(arguments)}` ended with {done.returncode}, not {expect}")
        return done.stdout

    def add_node(self) -> list[str]:
        printed = self.trueup("node", "add", "web-1", "--primary", self.environment["SYNC_TCP_ADDR"])
        for line in printed.splitlines():
            if "trueup-agent join" in line:
                return shlex.split(line.strip())[1:]
        raise DemoFailed("`trueup node add` printed no join command")

    @contextmanager
    def agent(self, join: list[str]) -> Iterator[None]:
        """The first pass, while an agent joins and starts to run; it runs until the block ends."""
        joining = [
            *join,
            *("--root", str(self.target.parent)),
            *("--config", str(self.agent_config)),
            *("--state-dir", str(self.root / "host" / "state")),
        ]
        running = ["run", "--config", str(self.agent_config)]
        click.secho("$ trueup-agent " + shlex.join(_without_token(joining)) + " \\", fg="cyan")
        click.secho("    && trueup-agent " + shlex.join(running) + " &", fg="cyan")
        commands = [shlex.join([sys.executable, "-m", "agent", *verb]) for verb in (joining, running)]
        process = subprocess.Popen(
            ["sh", "-c", f"{commands[0]} && exec {commands[1]}"],
            env=self.environment,
            cwd=self.root,
            stdout=(log := (self.root / "agent.log").open("wb")),
            stderr=subprocess.STDOUT,
        )
        log.close()
        try:
            self.trueup("reconcile", "--wait-agents", "60s")
            for line in (self.root / "agent.log").read_text().splitlines():
                click.secho(f"  agent | {line}", dim=True)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def show_tree(self) -> None:
        for path in sorted(self.target.rglob("*")):
            if path.is_file():
                size, mode = path.stat().st_size, path.stat().st_mode & 0o777
                click.echo(f"  {mode:04o} {size:>5} bytes  {path.relative_to(self.root / 'host')}")
        click.echo(f"  deployed greeting: {self.deployed.read_text().strip()}")

    def show_status_file(self, path: str) -> None:
        click.secho(f"$ git show trueup/status:{path}", fg="cyan")
        self._git("-C", str(self.root / "spec.git"), "show", f"trueup/status:{path}")


def _without_token(arguments: list[str]) -> list[str]:
    return [
        "***" if index and arguments[index - 1] == "--token" else argument
        for index, argument in enumerate(arguments)
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
