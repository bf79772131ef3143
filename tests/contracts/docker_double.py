"""Stands in for docker with its compose plugin: the part of their command lines that trueup uses.

    docker version --format {{.Server.Version}}
    docker ps --all --filter label=... --format {{.ID}}
    docker inspect --format {{json .Config.Env}} ID
    docker compose version
    docker compose [--ansi never] [--project-name P] [--file F] [--env-file E] up|down [OPTIONS]

What "runs" is one JSON file in the directory that is named first on the command line, for each daemon
address one. Exit codes, streams and words are docker's, as its client and compose plugin print them: no
daemon is exit code 1, an unknown global flag 125; `up --wait` fails for a container that ends, also with
code 0; `down` needs no file, finds containers by their labels, and is content where there are none.

A service's `x-double` says how its container fares: {exit: CODE}, {print: TEXT}, {hang: true}. Files named
`no-compose` and `no-daemon` in the directory take these away.
"""

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import yaml

VALUED = {"--ansi", "--project-name", "-p", "--file", "-f", "--env-file", "--wait-timeout", "--filter"}
VALUED |= {"--format", "--timeout"}
FLAGS = {"--detach", "-d", "--build", "--quiet-pull", "--remove-orphans", "--wait", "--all", "-a"}
HELP = "\n\nRun 'docker --help' for more information"


def fail(code: int, text: str) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(code)


def parsed(arguments: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    options: dict[str, list[str]] = {}
    words: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in VALUED:
            options.setdefault(argument, []).append(next(rest))
        elif argument in FLAGS:
            options[argument] = []
        elif argument.startswith("-"):
            fail(125, f"unknown flag: {argument}\n\nUsage:  docker [OPTIONS] COMMAND [ARG...]{HELP}")
        else:
            words.append(argument)
    return options, words


class Daemon:
    """The containers and volumes of one daemon."""

    def __init__(self, state: Path) -> None:
        self._host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if (state / "no-daemon").exists():
            fail(1, f"Cannot connect to the Docker daemon at {self._host}. Is the docker daemon running?")
        name = hashlib.sha256(self._host.encode()).hexdigest()[:8]
        self._file = state / f"daemon-{name}.json"
        # One request at a time, as several of these programs run at once; held until the program ends.
        self._lock = (state / f"daemon-{name}.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        known = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.containers: dict[str, dict[str, Any]] = known.get("containers", {})
        self.volumes: list[str] = known.get("volumes", [])

    def save(self) -> None:
        self._file.write_text(json.dumps({"containers": self.containers, "volumes": self.volumes}))

    def release(self) -> None:
        """Let others in, for a program that is going to hang."""
        self._lock.close()

    def of(self, project: str) -> dict[str, dict[str, Any]]:
        label = "com.docker.compose.project"
        return {id: one for id, one in self.containers.items() if one["labels"][label] == project}


def interpolated(text: str, variables: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, operator, word = match["name"] or match["plain"], match["operator"], match["word"]
        if match["escaped"]:
            return "$"
        if variables.get(name):
            return variables[name]
        if operator == ":?":
            fail(1, f"error while interpolating: required variable {name} is missing a value: {word}")
        if operator is None and name not in variables:
            print(f'The "{name}" variable is not set. Defaulting to a blank string.', file=sys.stderr)
        return word if operator == ":-" else ""

    braced = r"\$\{(?P<name>\w+)(?:(?P<operator>:-|:\?)(?P<word>[^}]*))?\}"
    pattern = rf"(?P<escaped>\$\$)|{braced}|\$(?P<plain>\w+)"
    return re.sub(pattern, value, text)


def model(options: dict[str, list[str]]) -> dict[str, Any]:
    file = Path(options.get("--file", ["compose.yaml"])[0])
    if not file.exists():
        fail(14, "no configuration file provided: not found")
    env_files = [Path(name) for name in options.get("--env-file", [str(file.parent / ".env")])]
    variables: dict[str, str] = {}
    for env_file in env_files:
        if env_file.exists():
            lines = [line.partition("=") for line in env_file.read_text().splitlines() if "=" in line]
            variables |= {name: value for name, _, value in lines}
    read = yaml.safe_load(interpolated(file.read_text(), variables | dict(os.environ)))
    if not isinstance(read, dict) or not read.get("services"):
        fail(15, f"validating {file}: services must be a mapping")
    return dict(read)


def up(options: dict[str, list[str]], daemon: Daemon) -> None:
    project = options["--project-name"][0]
    read = model(options)
    mine = {one["labels"]["com.docker.compose.service"]: id for id, one in daemon.of(project).items()}
    for name, id in mine.items():
        if name not in read["services"]:
            if "--remove-orphans" not in options:
                print(f"Found orphan containers ([{project}-{name}-1]) for this project.", file=sys.stderr)
            else:
                del daemon.containers[id]
                print(f" Container {project}-{name}-1  Removed", file=sys.stderr)
    daemon.volumes += [f"{project}_{name}" for name in read.get("volumes") or {}]
    daemon.volumes[:] = sorted(set(daemon.volumes))
    ended = None
    for name, service in read["services"].items():
        environment = service.get("environment", {})
        labels = {
            "com.docker.compose.project": project,
            "com.docker.compose.service": name,
            "com.docker.compose.oneoff": "False",
            "com.docker.compose.project.working_dir": str(Path(options["--file"][0]).parent),
        }
        id = mine.get(name) or hashlib.sha256(f"{project} {name}".encode()).hexdigest()[:12]
        fares = service.get("x-double", {})
        daemon.containers[id] = {
            "labels": labels,
            "image": service.get("image", ""),
            "env": [f"{key}={value}" for key, value in environment.items()],
            "state": "exited" if "exit" in fares else "running",
        }
        daemon.save()
        if "print" in fares:
            print(fares["print"], flush=True)
        print(f" Container {project}-{name}-1  Started", file=sys.stderr, flush=True)
        if fares.get("hang"):
            daemon.release()
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            print(f"waiting {os.getpid()} {child.pid}", flush=True)
            time.sleep(1000)
        if "exit" in fares:
            ended = f"container {project}-{name}-1 exited ({fares['exit']})"
    daemon.save()
    if ended and "--wait" in options:
        fail(1, ended)


def down(options: dict[str, list[str]], daemon: Daemon) -> None:
    project = options["--project-name"][0]
    gone = daemon.of(project)
    if not gone:
        print(f'Warning: No resource found to remove for project "{project}".', file=sys.stderr)
    for id, one in gone.items():
        del daemon.containers[id]
        print(
            f" Container {project}-{one['labels']['com.docker.compose.service']}-1  Removed", file=sys.stderr
        )
    daemon.save()


def main(state: Path, arguments: list[str]) -> None:
    if arguments[:1] == ["compose"]:
        if (state / "no-compose").exists():
            if arguments[1:2] and arguments[1].startswith("-"):
                fail(125, f"unknown flag: {arguments[1]}\n\nUsage:  docker [OPTIONS] COMMAND [ARG...]{HELP}")
            fail(1, f"docker: unknown command: docker compose{HELP}")
        options, words = parsed(arguments[1:])
        if words == ["version"]:
            print("Docker Compose version v2.32.1")
        elif words in (["up"], ["down"]):
            (up if words == ["up"] else down)(options, Daemon(state))
        else:
            fail(16, f"unknown docker command: {words}")
        return
    options, words = parsed(arguments)
    daemon = Daemon(state)
    if words == ["version"]:
        print("28.2.2")
    elif words == ["ps"]:
        wanted = [filter.removeprefix("label=").partition("=") for filter in options.get("--filter", [])]
        for id, one in daemon.containers.items():
            if all(one["labels"].get(label) == value for label, _, value in wanted):
                print(id)
    elif words[:1] == ["inspect"] and words[1] in daemon.containers:
        print(json.dumps(daemon.containers[words[1]]["env"]))
    else:
        fail(1, f"docker: unknown command: docker {words}{HELP}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
