"""What an agent tells the outside about itself: log lines, `status.json`, and systemd.

`status.json` in the state directory is for `trueup-agent status`. Whether an agent runs at all is
told by the lock that it holds as long as it lives; so a file left by a killed one deceives nobody.
"""

import datetime
import fcntl
import logging
import os
import socket
from pathlib import Path

import msgspec
import trio

from agent import tls
from agent.address import Address
from agent.errors import SettingsError
from agent.logs import visible
from agent.totals import Totals, render
from agent.wire.messages import Removal, Task, TaskReport, Work

_log = logging.getLogger("trueup.agent")

MAX_FIELD = 500
"""Characters of what a primary said that go into one field of a log line: it may say a MiB at a time."""


BROKEN_OFF = "the agent ended in the middle of it; what was placed stays, and the next task carries on"


class LastTask(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: str
    project: str
    target_path: str
    state: str
    """RUNNING, SUCCESS or FAILED; of an agent that is gone, `without_agent` says how it stands."""
    reason: str = ""
    message: str = ""
    at: str


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Times are RFC 3339 in UTC."""

    node: str
    version: str
    pid: int
    connected: bool = False
    primary: str = ""
    since: str = ""
    """When the connection was made or lost."""
    problem: str = ""
    """Why there is no connection, in words."""
    running: int = 0
    """Tasks under way."""
    last_task: LastTask | None = None
    last_sync: str = ""
    """When a project was last synced here to its end."""
    drifted: int | None = None
    """Entries, at all targets, that are not as the last task left them; null: nobody has looked yet."""
    drift_seen: str = ""
    """When that was looked at."""
    started: str = ""
    totals: Totals = Totals()
    """What was done since then."""


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Board:
    """The one place that changes the status; every change is written, logged and told to systemd."""

    def __init__(self, state_dir: Path, *, node: str, version: str, metrics_file: Path | None = None) -> None:
        """Takes over what the agent before this one noted of its last task; blocks.

        `metrics_file`: where the same is kept for Prometheus.
        """
        self._path = state_dir / "status.json"
        self._metrics_file = metrics_file
        self._metrics_problem = ""
        self._lock = trio.Lock()
        self.status = Status(
            node=node,
            version=version,
            pid=os.getpid(),
            since=now(),
            started=now(),
            last_task=_last_task_before(state_dir),
        )

    async def started(self) -> None:
        _log.info("started", extra={"fields": {"node": self.status.node, "version": self.status.version}})
        notify("READY=1\nSTATUS=not connected yet")
        await self._write()

    async def connected(self, address: Address) -> None:
        self._change(connected=True, primary=str(address), since=now(), problem="")
        _log.info("connected", extra={"fields": {"primary": str(address)}})
        notify(f"STATUS=connected to {address}")
        await self._write()

    async def paired(self, address: Address, fingerprint: str) -> None:
        _log.info("paired", extra={"fields": {"primary": str(address), "fingerprint": fingerprint}})

    async def disconnected(self, problem: str) -> None:
        """Called for each failed attempt too; one line for as long as the problem stays the same."""
        if not self.status.connected and problem == self.status.problem:
            return
        self._change(connected=False, since=now(), problem=problem)
        _log.warning("not connected", extra={"fields": {"problem": problem}})
        # A line break in what a primary said would begin an assignment of its own, such as MAINPID=.
        notify(f"STATUS=not connected: {visible(problem)}")
        await self._write()

    async def task_started(self, task: Work) -> None:
        self._change(running=self.status.running + 1)
        if not _only_looks(task):
            self._change(last_task=self._task(task, "RUNNING"))
        _log.info("task started", extra={"fields": _fields(task)})
        await self._write()

    async def task_ended(self, task: Work, report: TaskReport) -> None:
        self._change(running=self.status.running - 1, totals=self.status.totals.with_report(report))
        if not _only_looks(task):
            self._change(last_task=self._task(task, report.state, report.reason, report.message))
            if isinstance(task, Task) and report.state == "SUCCESS":
                self._change(last_sync=now())
        fields = _fields(task) | {"state": report.state, "reason": report.reason, "message": report.message}
        level = logging.INFO if report.state == "SUCCESS" else logging.ERROR
        _log.log(level, "task ended", extra={"fields": {k: v for k, v in fields.items() if v}})
        await self._write()

    async def looked(self, drifted: int) -> None:
        """How many entries are not as they were left, at all targets."""
        self._change(drifted=drifted, drift_seen=now())
        await self._write()

    async def stopped(self) -> None:
        self._change(connected=False, since=now(), problem="stopped")
        _log.info("stopped")
        notify("STOPPING=1")
        await self._write()

    def _change(self, **fields: object) -> None:
        self.status = msgspec.structs.replace(self.status, **fields)

    def _task(self, task: Work, state: str, reason: str = "", message: str = "") -> LastTask:
        return LastTask(
            id=task.id[:MAX_FIELD],
            project=task.project[:MAX_FIELD],
            target_path=task.target_path[:MAX_FIELD],
            state=state,
            reason=reason,
            message=message,
            at=now(),
        )

    async def _write(self) -> None:
        async with self._lock:
            content = msgspec.json.format(msgspec.json.encode(self.status), indent=2) + b"\n"
            try:
                await trio.to_thread.run_sync(tls.write_private, self._path, content)
            except OSError as error:
                # The work goes on: a full disk is reported by the tasks that meet it.
                _log.warning("status not written", extra={"fields": {"problem": error.strerror}})
            if self._metrics_file is not None:
                await self._write_metrics(self._metrics_file)

    async def _write_metrics(self, path: Path) -> None:
        known, problem = self.status, ""
        text = render(
            known.totals,
            node=known.node,
            version=known.version,
            started=known.started,
            connected=known.connected,
            running=known.running,
            drifted=known.drifted,
            last_sync=known.last_sync,
        )
        try:
            await trio.to_thread.run_sync(_replace, path, text.encode())
        except OSError as error:
            problem = error.strerror or type(error).__name__
            if problem != self._metrics_problem:
                fields = {"file": str(path), "problem": problem}
                _log.warning("metrics not written", extra={"fields": fields})
        self._metrics_problem = problem


def _replace(path: Path, content: bytes) -> None:
    """Whoever reads sees the old content or the new, and may be anybody; blocks."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        os.fchmod(fd, 0o644)
    new.replace(path)


def read_status(state_dir: Path) -> Status | None:
    """What the agent of a state directory wrote last; None if there never was one."""
    path = state_dir / "status.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError:
        raise SettingsError(f"{path}: is damaged", hint="restart the agent") from None


def without_agent(status: Status) -> Status:
    """How things stand where no agent runs any more that could carry on with anything. Pure."""
    last = status.last_task
    if last is not None and last.state == "RUNNING":
        last = msgspec.structs.replace(last, state="FAILED", reason="Interrupted", message=BROKEN_OFF)
    return msgspec.structs.replace(
        status,
        pid=0,
        connected=False,
        running=0,
        last_task=last,
        problem="the agent is not running: trueup-agent run",
    )


def _last_task_before(state_dir: Path) -> LastTask | None:
    """How the last task of the agent before this one stands; None also where nobody can tell. Blocks."""
    try:
        before = read_status(state_dir)
    except SettingsError:
        return None  # it is about to be written anew
    return without_agent(before).last_task if before is not None else None


def hold_lock(state_dir: Path) -> int:
    """Claim a state directory for this process; gives the descriptor to keep.

    SettingsError if another agent has it or it cannot be written.
    """
    path = state_dir / "agent.lock"
    try:
        tls.make_private_directory(state_dir)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise SettingsError(
            f"another agent is running with {state_dir}",
            hint="stop it first if it is this node's own; agents of two nodes need a --state-dir each",
        ) from None
    return descriptor


def is_running(state_dir: Path) -> bool:
    """Whether an agent holds this state directory now."""
    try:
        descriptor = os.open(state_dir / "agent.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SettingsError(f"{error.filename}: cannot be read: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise SettingsError(f"{state_dir}/agent.lock: cannot be looked at: {error.strerror}") from None
    finally:
        os.close(descriptor)
    return False


def notify(text: str) -> None:
    """Tell systemd, if it asked to be told (sd_notify(3)); never fails.

    Each line is an assignment that systemd acts on: what somebody else said goes through `visible` first.
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)
        try:
            channel.sendto(text.encode(), name.replace("@", "\0", 1) if name.startswith("@") else name)
        except OSError:
            return


def _only_looks(task: Work) -> bool:
    return isinstance(task, Task) and task.observe


def _fields(task: Work) -> dict[str, str]:
    what: str
    if isinstance(task, Task):
        what = "observe" if task.observe else task.strategy
    else:
        what = "remove" if isinstance(task, Removal) else f"command {task.command}"
    said = {"task": task.id, "project": task.project, "target": task.target_path, "what": what}
    return {key: value[:MAX_FIELD] for key, value in said.items()}
