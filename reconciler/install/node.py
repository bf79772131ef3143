"""`trueup node install`: looks, plans, carries out, and keeps its log in the journal."""

import secrets
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import structlog
import trio

from agent.node_token import NodeToken
from reconciler import spec_edit
from reconciler.errors import JournalUnavailable, SettingsError, TrueupError
from reconciler.install.facts import probe, read_facts
from reconciler.install.plan import SPEC, Feed, Found, Step, Wanted, check, plan_install, refuse, render_unit
from reconciler.install.run import InstallFailed, Log, carry_out
from reconciler.install.ssh import SshHost
from reconciler.install.wheels import agent_wheel, download, packed
from reconciler.journal import Journal
from reconciler.journal_file import JOURNAL_FILE
from reconciler.live import request_if_running
from reconciler.nodes import commit_spec, forget_certificate
from reconciler.primary import open_repositories, read_status
from reconciler.secrets.known import KNOWN
from reconciler.secrets.values import Secret
from reconciler.settings import Settings
from reconciler.spec_edit import NodeFields
from reconciler.spec_source import read_spec

log: structlog.stdlib.BoundLogger = structlog.get_logger()

PROBE_DEADLINE: Final = 60.0
ASK_DEADLINE: Final = 30.0
MAX_WHEEL: Final = 64 << 20

TEMPLATE: Final = "trueup-agent.service"
"""The unit; the same file as in examples/systemd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of the command."""

    wanted: Wanted
    host: SshHost
    labels: tuple[tuple[str, str], ...] = ()
    wheel: Path | None = None
    token: NodeToken | None = None
    """Given; None: made here where one is needed."""
    replace: bool = False
    """Take the place of another host that paired under this name."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the node stands in the spec."""

    token_key: str | None
    """None: the spec does not have it."""
    paired: bool


async def install_node(settings: Settings, request: Request, tell: Callable[[str], None]) -> None:
    """Put the agent onto a host, and wait until the primary has accepted it; run again, it upgrades.

    Raises SettingsError before anything is changed, and InstallFailed once all that was is taken back.
    """
    installation = await _looked(settings, request)
    await installation.carry_out(tell)


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
    standing = await _standing(settings, node)
    found = read_facts(await request.host.run(probe(request.wanted), deadline=PROBE_DEADLINE))
    refuse(request.wanted, found)
    has_token = found.node == node and found.has_token and not request.replace
    if request.token is not None and request.token.public_text != standing.token_key:
        raise SettingsError(f"the token given is not the one that the spec has for {node}")
    new_token = request.token is not None or standing.token_key is None or not has_token
    in_use = standing.paired and standing.token_key is not None
    if in_use and request.token is None and not has_token and not request.replace:
        raise SettingsError(
            f"{node} is paired with another host, or this one has lost its records",
            hint="choose another name, or let this host take its place with --replace",
        )
    id = secrets.token_hex(4)
    steps = plan_install(request.wanted, found, id=id, new_token=new_token)
    return _Installation(settings, request, standing, found, steps)


async def _standing(settings: Settings, node: str) -> Standing:
    repositories, url = open_repositories(settings), settings.require_spec_repo()
    await repositories.refresh(url)
    spec = await read_spec(repositories.mirror(url), settings.spec_branch, last_good=None)
    recorded = (await read_status(settings, repositories)).nodes.get(f"nodes/{node}")
    known = spec.spec.nodes.get(node)
    return Standing(
        token_key=None if known is None else known.token_key,
        # Of a node that left the spec and comes back, too.
        paired=bool(recorded and recorded.certificate),
    )


class _Installation:
    """One installation of which everything is known that can be known before it begins."""

    def __init__(
        self, settings: Settings, request: Request, standing: Standing, found: Found, steps: tuple[Step, ...]
    ) -> None:
        self._settings = settings
        self._request = request
        self._standing = standing
        self._found = found
        self.steps = steps
        self._token = request.token
        self._committed = False
        self._feeds: dict[Feed, bytes] = {}

    async def carry_out(self, tell: Callable[[str], None]) -> None:
        wanted = self._request.wanted
        written = Log(tell, KNOWN.mask)
        record = await trio.to_thread.run_sync(_Record.begin, self._settings, wanted.node)
        try:
            await self._prepare()
            await carry_out(self.steps, self._do, self._undo, written)
        except BaseException as error:
            reason = error.reason if isinstance(error, TrueupError) else "Aborted"
            said = written.mask(str(error)) if isinstance(error, TrueupError) else "it was interrupted"
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(record.end, reason, said, written.text)
            if isinstance(error, InstallFailed):
                tell(f"the journal keeps its log, as task {record.id}")
            raise
        done = f"the agent of {wanted.node} runs on {self._request.host.destination}"
        if not wanted.service:
            done = f"{wanted.node} has joined; start it there: {wanted.program} run --config {wanted.config}"
        written.say(done)
        await trio.to_thread.run_sync(record.end, "", done, written.text)

    async def _prepare(self) -> None:
        """All that is copied there, made before anything is changed."""
        with tempfile.TemporaryDirectory(prefix="trueup-wheels-") as directory:
            wheel = await trio.to_thread.run_sync(_wheel, self._request.wheel, Path(directory))
            if self._request.wanted.offline:
                await download(wheel, Path(directory), self._found, self._settings.tool_environment())
            self._feeds[Feed.WHEELS] = await trio.to_thread.run_sync(packed, Path(directory))
        template = files(__package__).joinpath(TEMPLATE).read_text("utf-8")
        self._feeds[Feed.UNIT] = render_unit(template, self._request.wanted).encode()

    async def _do(self, step: Step) -> str:
        if step.name == SPEC:
            return await self._give_token()
        feed = self._feeds.get(step.feed, b"")
        return await self._request.host.run(step.do, stdin=feed, deadline=step.deadline)

    async def _undo(self, step: Step) -> str:
        if step.name == SPEC:
            return await self._take_token_back()
        if not step.undo:
            return ""
        return await self._request.host.run(step.undo, deadline=step.deadline)

    async def _give_token(self) -> str:
        node = self._request.wanted.node
        said = "the token that was given is the spec's"
        if self._token is None:
            self._token = NodeToken.generate()
            fields = NodeFields(labels=dict(self._request.labels))
            key = self._token.public_text
            in_spec = self._standing.token_key is not None
            edit = spec_edit.rotate_token(node, key) if in_spec else spec_edit.add_node(node, key, fields)
            commit = await commit_spec(self._settings, edit)
            self._committed = True
            said = f"committed to the spec: {commit[:12]}"
        if self._standing.paired:
            await forget_certificate(self._settings, node)
        token = Secret(self._token.to_text())
        KNOWN.learn([token])
        self._feeds[Feed.TOKEN] = f"{token.reveal()}\n".encode()
        await self._ask_for_a_pass()
        return said

    async def _take_token_back(self) -> str:
        if not self._committed:
            return ""
        node, before = self._request.wanted.node, self._standing.token_key
        edit = spec_edit.remove_node(node) if before is None else spec_edit.rotate_token(node, before)
        commit = await commit_spec(self._settings, edit)
        await forget_certificate(self._settings, node)  # of a host that had joined already
        await self._ask_for_a_pass()
        return f"taken back in the spec: {commit[:12]}"

    async def _ask_for_a_pass(self) -> None:
        """A primary on this machine need not wait for its interval; one elsewhere has a webhook, or does."""
        try:
            with trio.move_on_after(ASK_DEADLINE):
                await request_if_running(self._settings, "POST", "/api/reconcile")
        except TrueupError as error:
            log.debug("the primary was not asked for a pass", why=str(error))


def _wheel(given: Path | None, into: Path) -> Path:
    if given is None:
        name, content = agent_wheel()
    else:
        name = given.name
        try:
            with given.open("rb") as file:
                content = file.read(MAX_WHEEL + 1)
        except OSError as error:
            raise SettingsError(f"--wheel {given}: {error.strerror}") from None
        if not name.startswith("trueup-") or not name.endswith(".whl") or len(content) > MAX_WHEEL:
            raise SettingsError(f"--wheel {given} is no wheel of trueup", hint="give trueup-….whl")
    (into / name).write_bytes(content)
    return into / name


@dataclass
class _Record:
    """The installation in the journal: a task of its node with one attempt, and an event at its end."""

    settings: Settings
    node: str
    id: str
    attempt: int | None = None

    @classmethod
    def begin(cls, settings: Settings, node: str) -> "_Record":
        record = cls(settings, node, uuid.uuid4().hex)
        try:
            with Journal(settings.state_dir / JOURNAL_FILE) as journal:
                journal.create_task(record.id, f"nodes/{node}", node)
                record.attempt = journal.begin_attempt(record.id)
        except JournalUnavailable as error:
            log.warning("this installation is not recorded", why=str(error))
        return record

    def end(self, reason: str, message: str, text: str) -> None:
        """`reason` empty: it succeeded."""
        if self.attempt is None:
            return
        try:
            with Journal(self.settings.state_dir / JOURNAL_FILE) as journal:
                journal.end_attempt(
                    self.id, self.attempt, "FAILED" if reason else "SUCCESS", reason, message, log=text
                )
                journal.record_event("installed", f"nodes/{self.node}", reason or "Installed", message)
        except JournalUnavailable as error:
            log.warning("the end of this installation is not recorded", why=str(error))
