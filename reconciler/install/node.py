"""`trueup node install`: looks, plans, carries out, and keeps its log in the journal."""

import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Final

import trio

from agent.node_token import NodeToken
from reconciler import spec_edit
from reconciler.errors import SettingsError, TrueupError
from reconciler.install.facts import probe, read_facts
from reconciler.install.in_spec import InSpec, look
from reconciler.install.plan import (
    LOCK,
    SPEC,
    Feed,
    Found,
    Step,
    Wanted,
    check,
    completed,
    plan_install,
    refuse,
)
from reconciler.install.record import Record
from reconciler.install.run import Interrupted, Log, carry_out, until_a_signal
from reconciler.install.ssh import SshHost
from reconciler.install.unit import TEMPLATE, render_unit
from reconciler.install.wheels import agent_wheel, download, packed
from reconciler.secrets.known import KNOWN
from reconciler.secrets.values import Secret
from reconciler.settings import Settings
from reconciler.spec_edit import NodeFields

PROBE_DEADLINE: Final = 60.0
MAX_WHEEL: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of the command."""

    wanted: Wanted
    """Without primaries where none was given: a host that has some keeps them."""
    host: SshHost
    here: str
    """This primary's address, for a host that has none."""
    labels: tuple[tuple[str, str], ...] = ()
    wheel: Path | None = None
    lock: Path | None = None
    """Other versions of what the agent needs than those of this version."""
    token: NodeToken | None = None
    """Given; None: made here where one is needed."""
    replace: bool = False
    """Take the place of another host that paired under this name."""


async def install_node(settings: Settings, request: Request, tell: Callable[[str], None]) -> None:
    """Put the agent onto a host, and wait until the primary has accepted it; run again, it upgrades.

    Raises SettingsError before anything is changed, and InstallFailed once all that was is taken back.
    """

    async def install() -> None:
        installation = await _looked(settings, request)
        await installation.carry_out(tell)

    await until_a_signal(install)


async def show_plan(settings: Settings, request: Request, tell: Callable[[str], None]) -> None:
    """Print each step with its commands, and with those that take it back; nothing is changed."""
    installation = await _looked(settings, request)
    for number, step in enumerate(installation.steps, 1):
        tell(f"# {number}. {step.what}")
        tell(step.do or "# here: a commit to the spec")
        if step.feed != Feed.NOTHING:
            tell(f"# its standard input: {step.feed.value}")
        if step.undo:
            tell("\n".join(f"# taken back by: {line}" for line in step.undo.splitlines()))
        tell("")


async def _looked(settings: Settings, request: Request) -> "_Installation":
    check(request.wanted)
    node = request.wanted.node
    spec_edit.check_new_node(node, NodeToken.generate().public_text, NodeFields(labels=dict(request.labels)))
    standing = await look(settings, node)
    found = read_facts(await request.host.run(probe(request.wanted), deadline=PROBE_DEADLINE))
    wanted = completed(request.wanted, found, primary=request.here)
    check(wanted)
    refuse(wanted, found)
    has_token = found.node == node and found.has_token and not request.replace
    if request.token is not None and request.token.public_text != standing.token_key:
        raise SettingsError(f"the token given is not the one that the spec has for {node}")
    new_token = request.token is not None or standing.token_key is None or not has_token
    in_use = standing.pairing is not None and standing.token_key is not None
    if in_use and request.token is None and not has_token and not request.replace:
        raise SettingsError(
            f"{node} is paired with another host, or this one has lost its records",
            hint="choose another name, or let this host take its place with --replace",
        )
    id = secrets.token_hex(4)
    steps = plan_install(wanted, found, id=id, new_token=new_token)
    in_spec = InSpec(settings, node, dict(request.labels), standing)
    return _Installation(settings, replace(request, wanted=wanted), in_spec, found, id, steps)


@dataclass
class _Installation:
    """One installation of which everything is known that can be known before it begins."""

    settings: Settings
    request: Request
    in_spec: InSpec
    found: Found
    id: str
    steps: tuple[Step, ...]
    _feeds: dict[Feed, bytes] = field(default_factory=dict, repr=False)

    async def carry_out(self, tell: Callable[[str], None]) -> None:
        wanted = self.request.wanted
        written = Log(tell, KNOWN.mask)
        record = await trio.to_thread.run_sync(Record.begin, self.settings, wanted.node)
        try:
            await self._prepare()
            await carry_out(self.steps, self, written)
        except BaseException as error:
            reason = error.reason if isinstance(error, TrueupError) else Interrupted.reason
            said = written.mask(str(error)) if isinstance(error, TrueupError) else "it was interrupted"
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(record.end, reason, said, written.text)
            if written.lines:
                _say_where(record, written)
            raise
        done = f"the agent of {wanted.node} runs on {self.request.host.destination}"
        if not wanted.service:
            done = f"{wanted.node} has joined; start it there: {wanted.program} run --config {wanted.config}"
        written.say(done)
        with trio.CancelScope(shield=True):  # it is done, whoever gives up now
            await trio.to_thread.run_sync(record.end, "", done, written.text)
        _say_where(record, written)

    async def _prepare(self) -> None:
        """All that is copied there, made before anything is changed."""
        with tempfile.TemporaryDirectory(prefix="trueup-wheels-") as directory:
            await trio.to_thread.run_sync(_lay_out, self.request, Path(directory))
            if self.request.wanted.offline:
                await download(Path(directory), self.found, self.settings.tool_environment())
            self._feeds[Feed.WHEELS] = await trio.to_thread.run_sync(packed, Path(directory))
        template = files(__package__).joinpath(TEMPLATE).read_text("utf-8")
        self._feeds[Feed.UNIT] = render_unit(template, self.request.wanted).encode()

    async def do(self, step: Step) -> str:
        if step.name == SPEC:
            token, said = await self.in_spec.give(self.request.token)
            secret = Secret(token.to_text())
            KNOWN.learn([secret])
            self._feeds[Feed.TOKEN] = f"{secret.reveal()}\n".encode()
            return said
        feed = self._feeds.get(step.feed, b"")
        return await self.request.host.run(step.do, stdin=feed, deadline=step.deadline, mark=self.id)

    async def undo(self, step: Step) -> str:
        if step.name == SPEC:
            return await self.in_spec.take_back()
        if not step.undo:
            return ""
        return await self.request.host.run(step.undo, deadline=step.deadline)

    async def halt(self) -> None:
        await self.request.host.halt(self.id)


def _say_where(record: Record, written: Log) -> None:
    if record.attempt is not None:
        written.say(f"its log: `trueup logs {record.id}`")


def _lay_out(request: Request, into: Path) -> None:
    """The wheel of the agent, and the lock of what it needs."""
    if request.wheel is None:
        name, content = agent_wheel()
    else:
        name, content = request.wheel.name, _read("--wheel", request.wheel)
        if not name.startswith("trueup-") or not name.endswith(".whl") or len(content) > MAX_WHEEL:
            raise SettingsError(f"--wheel {request.wheel} is no wheel of trueup", hint="give trueup-….whl")
    (into / name).write_bytes(content)
    ours = files(__package__).joinpath(LOCK)
    (into / LOCK).write_bytes(ours.read_bytes() if request.lock is None else _read("--lock", request.lock))


def _read(option: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_WHEEL + 1)
    except OSError as error:
        raise SettingsError(f"{option} {path}: {error.strerror}") from None
