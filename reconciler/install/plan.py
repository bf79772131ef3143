"""What an installation does on a host, step by step, each with what takes it back. Pure.

A step is a shell script for the host. Its `undo` takes back exactly what it made, whether it was done as a
whole, in part or not at all; what was there before comes back as it was. Steps that are done in this order
and taken back in reverse therefore leave the host as they found it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from shlex import quote
from typing import Final

from agent.errors import SettingsError

LINK: Final = "agent"
"""The name below the prefix that leads to the environment in use."""

LOCK: Final = "agent.lock"
"""What the agent needs, each file by its hash: `requirements/agent.lock`, beside the wheel."""

DEFAULT_STATE_DIR: Final = "/var/lib/trueup-agent"
OLDEST_PYTHON: Final = (3, 11)
NEEDED_KIB: Final = 200 * 1024
"""Room for an environment and the one it replaces."""

_PATH: Final = re.compile(r"/[A-Za-z0-9._/@+-]*")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_ANY_ID: Final = "[0-9a-f]" * 8
"""Matches each `id` in a shell."""


class Feed(StrEnum):
    """What a step gets on its standard input."""

    NOTHING = "nothing"
    WHEELS = "the wheels, as a tar archive"
    TOKEN = "the node's token"  # noqa: S105 - says what it is
    UNIT = "the unit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the operator asked for."""

    node: str
    primaries: tuple[str, ...]
    pin: str
    roots: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    prefix: str = "/opt/trueup"
    config: str = "/etc/trueup/agent.toml"
    state_dir: str = DEFAULT_STATE_DIR
    unit: str = "trueup-agent"
    unit_dir: str = "/etc/systemd/system"
    user: str = ""
    """The account that the agent runs as; empty: root, or whoever logs in."""
    service: bool = True
    offline: bool = False
    python: str = "python3"
    wait: int = 120

    @property
    def unit_file(self) -> str:
        return f"{self.unit_dir}/{self.unit}.service"

    @property
    def program(self) -> str:
        return f"{self.prefix}/{LINK}/bin/trueup-agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was there before anything was done."""

    uid: int
    python: tuple[int, int] = (0, 0)
    can_make_venv: bool = False
    machine: str = ""
    glibc: tuple[int, int] = (0, 0)
    systemd: bool = False
    free_kib: int = 0
    missing: tuple[str, ...] = ()
    """Directories that are needed and not there, parents first."""
    unwritable: tuple[str, ...] = ()
    link: str = ""
    """The environment in use, below the prefix."""
    link_taken: bool = False
    """Something else has the name of the link."""
    present: tuple[str, ...] = ()
    """Which of configuration, state directory and unit are there."""
    node: str = ""
    """Whose configuration it is."""
    has_token: bool = False
    active: bool = False
    running: bool = False
    """An agent has these records in use, whoever started it."""
    enabled: bool = False
    user: str = ""
    """Whom the agent shall run as: who was asked for, or the present unit's."""
    user_exists: bool = False
    roots: tuple[str, ...] = ()
    """Of the present configuration, as are the next two."""
    primaries: tuple[str, ...] = ()
    state_dir: str = ""
    config_unreadable: bool = False
    """It is there, and nobody knows whose it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    name: str
    what: str
    do: str = ""
    """Empty: done here, not on the host."""
    undo: str = ""
    feed: Feed = Feed.NOTHING
    deadline: int = 60
    """Seconds."""
    optional: bool = False
    """Its failure undoes nothing."""


SPEC: Final = "spec"
"""The name of the step that is done here: the node in the spec, with its token."""


def check(wanted: Wanted) -> None:
    """Raises SettingsError for what no host could do. Units and scripts are written from these values."""
    directories = {
        "--prefix": (wanted.prefix,),
        "--config": (wanted.config,),
        "--host-state": (wanted.state_dir,),
        "--unit-dir": (wanted.unit_dir,),
        "--root": wanted.roots,
    }
    for option, paths in directories.items():
        for path in paths:
            if not _PATH.fullmatch(path) or ".." in path.split("/") or path.rstrip("/") == "":
                raise SettingsError(
                    f"{option} {path!r} is not accepted",
                    hint="give an absolute path of letters, digits and ._@+-",
                )
    for option, name in (("--unit", wanted.unit), ("--user", wanted.user or "root")):
        if not _NAME.fullmatch(name):
            raise SettingsError(f"{option} {name!r} is not accepted", hint="give letters, digits and ._@-")


def completed(wanted: Wanted, found: Found, *, primary: str) -> Wanted:
    """With what the host's last installation has, where this call says nothing of it.

    `primary`: the address where neither does.
    """
    return replace(
        wanted,
        roots=wanted.roots or found.roots,
        primaries=wanted.primaries or found.primaries or (primary,),
        user=wanted.user or found.user,
    )


def refuse(wanted: Wanted, found: Found) -> None:
    """Raises SettingsError, with what to do, for a host on which it could not succeed; nothing is changed."""
    if found.python < OLDEST_PYTHON:
        has = "no Python" if found.python == (0, 0) else f"Python {found.python[0]}.{found.python[1]}"
        raise SettingsError(
            f"the host has {has}, and the agent needs 3.11 or later",
            hint="install one there, and name it with --python",
        )
    if not found.can_make_venv:
        raise SettingsError(
            "the host's Python makes no environments", hint="there: apt install python3-venv, or the like"
        )
    if found.free_kib < NEEDED_KIB:
        raise SettingsError(
            f"{wanted.prefix} has room for {found.free_kib} KiB, and {NEEDED_KIB} KiB are needed",
            hint="make room there, or give another --prefix",
        )
    if found.node not in ("", wanted.node):
        raise SettingsError(
            f"{wanted.config} on the host belongs to the node {found.node}",
            hint="a second agent there needs its own --config, --host-state, --unit and --prefix",
        )
    if found.node and found.state_dir != wanted.state_dir:
        raise SettingsError(
            f"the records of {found.node} are in {found.state_dir} on the host",
            hint=f"give --host-state {found.state_dir}",
        )
    if found.link_taken:
        raise SettingsError(
            f"{wanted.prefix}/{LINK} on the host is not ours", hint="give another --prefix, or remove it"
        )
    if wanted.service and not found.systemd:
        raise SettingsError(
            "no systemd runs on the host",
            hint="give --no-service, and start the agent as things are started there",
        )
    if found.unwritable:
        raise SettingsError(
            f"{', '.join(found.unwritable)} cannot be written there",
            hint="log in as root or give --sudo; or name others: --prefix, --config, --host-state, --root",
        )
    if found.config_unreadable:
        raise SettingsError(
            f"{wanted.config} is there on the host, and cannot be read as an agent's configuration",
            hint="log in as who may read it, mend it, or give another --config",
        )
    if found.active and not wanted.service and found.node:
        # Its files would be taken from under it, and nothing here would start it again.
        raise SettingsError(
            f"the unit {wanted.unit} runs on the host, and {found.node} is installed there",
            hint="leave out --no-service, stop the unit, or give --unit where that unit is another's",
        )
    if found.running and not (found.active and wanted.service):
        raise SettingsError(
            f"an agent runs on the host with {wanted.state_dir}, and not as the unit {wanted.unit}",
            hint="stop it there, and run this again; or name its --unit",
        )
    if wanted.user and not found.user_exists and found.uid != 0:
        raise SettingsError(
            f"only root can make the account {wanted.user}", hint="log in as root, or give --sudo"
        )


def plan_install(wanted: Wanted, found: Found, *, id: str, new_token: bool) -> tuple[Step, ...]:
    """The steps, in order. `id` is in the names of what is made for this installation alone.

    `new_token`: the node gets one; otherwise the host has that of its last installation.
    """
    return tuple(_steps(wanted, found, id, new_token))


def _steps(wanted: Wanted, found: Found, id: str, new_token: bool) -> Iterator[Step]:
    prefix = wanted.prefix
    environment, wheels = f"{prefix}/{LINK}-{id}", f"{prefix}/wheels-{id}"
    kept = (wanted.config, wanted.state_dir, *([wanted.unit_file] if wanted.service else ()))
    if wanted.user and not found.user_exists:
        yield Step(
            name="user",
            what=f"make the account {wanted.user}",
            do=f"useradd --system --home-dir {quote(wanted.state_dir)} --no-create-home"
            f" --shell /usr/sbin/nologin {quote(wanted.user)}",
            undo=f"if id -u {quote(wanted.user)} >/dev/null 2>&1; then userdel {quote(wanted.user)}; fi",
        )
    if found.missing:
        owned = [root for root in wanted.roots if wanted.user and root in found.missing]
        yield Step(
            name="directories",
            what=f"make {', '.join(found.missing)}",
            do="\n".join(
                [f"mkdir -m 0755 {quote(path)}" for path in found.missing]
                + [f"chown {quote(wanted.user)}: {quote(root)}" for root in owned]
            ),
            # Only where nobody put anything into them meanwhile.
            undo="\n".join(f"rmdir {quote(path)} 2>/dev/null || :" for path in reversed(found.missing)),
        )
    yield Step(
        name="upload",
        what="copy the agent there" + (" with what it needs" if wanted.offline else ""),
        do=f"mkdir -m 0700 {quote(wheels)}\ntar -xf - -C {quote(wheels)}",
        undo=f"rm -rf {quote(wheels)}",
        feed=Feed.WHEELS,
        deadline=600,
    )
    yield Step(
        name="environment",
        what=f"make the environment {environment}",
        do=f"{quote(wanted.python)} -I -m venv {quote(environment)}",
        undo=f"rm -rf {quote(environment)}",
        deadline=300,
    )
    # Isolated: neither the directory it runs in nor PYTHONPATH says what is installed already.
    pip = f"{quote(environment)}/bin/python -I -m pip --quiet --disable-pip-version-check --no-input"
    index = f" --no-index --find-links {quote(wheels)}" if wanted.offline else ""
    yield Step(
        name="packages",
        what="install the agent into it"
        + ("" if wanted.offline else ", with four libraries from the host's index"),
        # Exactly the files that the lock names by their hashes, whatever the index offers.
        do=f"{pip} install{index} --no-deps --require-hashes --requirement {quote(f'{wheels}/{LOCK}')}\n"
        f"{pip} install --no-index --no-deps {quote(wheels)}/trueup-*.whl\n{pip} check\n"
        f"{quote(environment)}/bin/trueup-agent --version\nrm -rf {quote(wheels)}",
        deadline=900,
    )
    if found.active and wanted.service:
        yield Step(
            name="stop",
            what="stop the agent that runs",
            do=f"systemctl stop {quote(wanted.unit)}",
            undo=f"systemctl start {quote(wanted.unit)}",
            deadline=180,
        )
    reload = ["systemctl daemon-reload"] if wanted.service else []
    yield Step(
        name="keep",
        what="keep what is there, for the case that something fails",
        do="\n".join(_keep(path, id) for path in kept if path in found.present) or ":",
        undo="\n".join([_bring_back(path, id, was_there=path in found.present) for path in kept] + reload),
    )
    link = f"{prefix}/{LINK}"
    yield Step(
        name="switch",
        what=f"let {link} lead to the new environment",
        do=f"ln -s {LINK}-{id} {quote(f'{link}.new-{id}')}\nmv -T {quote(f'{link}.new-{id}')} {quote(link)}",
        undo=f"rm -f {quote(f'{link}.new-{id}')}\n"
        + (f"ln -sfn {quote(found.link)} {quote(link)}" if found.link else f"rm -f {quote(link)}"),
    )
    if new_token:
        yield Step(name=SPEC, what=f"give {wanted.node} a token in the spec")
    yield Step(
        name="join",
        what=f"join {', '.join(wanted.primaries)} as {wanted.node}",
        do=" ".join(map(quote, _join_command(wanted, new_token=new_token))),
        feed=Feed.TOKEN if new_token else Feed.NOTHING,
        deadline=wanted.wait + 60,
    )
    if wanted.user:
        yield Step(
            name="owner",
            what=f"give configuration and records to {wanted.user}",
            do=f"chown -R {quote(wanted.user)}: {quote(wanted.state_dir)} {quote(wanted.config)}",
        )
    if wanted.service:
        yield from _service(wanted, found, id)
    # Of this installation, and of those before it that were cut off and could not take anything back.
    copies = [f"{quote(path)}.{kind}-{_ANY_ID}" for path in kept for kind in ("before", "part")]
    yield Step(
        name="settle",
        what="remove what is not needed any more",
        do=f"rm -rf {' '.join(copies)} {quote(prefix)}/wheels-{_ANY_ID}\n"
        f"for old in {quote(prefix)}/{LINK}-{_ANY_ID} {quote(link)}.new-{_ANY_ID}; do\n"
        f'  [ "$old" = {quote(environment)} ] || rm -rf "$old"\ndone',
        optional=True,
    )


def _service(wanted: Wanted, found: Found, id: str) -> Iterator[Step]:
    unit, part = quote(wanted.unit), quote(f"{wanted.unit_file}.part-{id}")
    yield Step(
        name="unit",
        what=f"write {wanted.unit_file}",
        do=f"cat > {part}\nchmod 0644 {part}\nmv {part} {quote(wanted.unit_file)}\nsystemctl daemon-reload",
        undo=f"rm -f {part}",
        feed=Feed.UNIT,
    )
    disable = "" if found.enabled else f"systemctl disable {unit} || :\n"
    yield Step(
        name="start",
        what="start the agent, now and at each start of the host",
        do=f"systemctl enable {unit}\nsystemctl restart {unit}",
        undo=f"{disable}systemctl stop {unit} || :",
        deadline=180,
    )
    status = f"{quote(wanted.program)} status --config {quote(wanted.config)}"
    yield Step(
        name="seen",
        what="wait until the primary has accepted it",
        do=f"tries=0\nuntil {status} >/dev/null 2>&1; do\n  tries=$((tries + 1))\n"
        f"  if [ $tries -ge {wanted.wait} ]; then {status} >&2; exit 1; fi\n  sleep 1\ndone",
        deadline=3 * wanted.wait + 60,
    )


def _join_command(wanted: Wanted, *, new_token: bool) -> list[str]:
    pairs = [("--primary", address) for address in wanted.primaries]
    pairs += [("--node", wanted.node), ("--pin", wanted.pin), ("--wait", str(wanted.wait))]
    pairs += [("--config", wanted.config), ("--state-dir", wanted.state_dir)]
    pairs += [("--root", root) for root in wanted.roots]
    pairs += [("--owner", owner) for owner in wanted.owners]
    pairs += [("--allow", command) for command in wanted.allow]
    pairs += [("--token-file", "-")] if new_token else []
    return [wanted.program, "join", *(f"{option}={value}" for option, value in pairs)]


def _keep(path: str, id: str) -> str:
    """A copy with owners, modes and times, under its name only once it is whole."""
    part, copy = quote(f"{path}.part-{id}"), quote(f"{path}.before-{id}")
    return f"cp -a {quote(path)} {part}\nmv -T {part} {copy}"


def _bring_back(path: str, id: str, *, was_there: bool) -> str:
    if not was_there:
        return f"rm -rf {quote(path)}"
    part, copy = quote(f"{path}.part-{id}"), quote(f"{path}.before-{id}")
    return f"rm -rf {part}\nif [ -e {copy} ]; then rm -rf {quote(path)}; mv -T {copy} {quote(path)}; fi"
