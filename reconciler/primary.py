"""What outlives a pass: the state directory, key, mirrors, status branch, journal and the agents' hub."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Hashable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NoReturn

import msgspec
import trio

from reconciler.background import background
from reconciler.bulletin import Bulletin
from reconciler.control.branch import ControlBranch
from reconciler.deploy.context import RunContext, sweep_homes
from reconciler.directories import Directories
from reconciler.early_looks import AskedLast
from reconciler.enrolling import enrol, enrolled
from reconciler.errors import JournalUnavailable, SettingsError
from reconciler.fleet import Fleet
from reconciler.git.checkout import sweep
from reconciler.git.process import GitOptions
from reconciler.github.export import Arrivals
from reconciler.github.pace import Pace
from reconciler.github_reports import GithubReports
from reconciler.hashing import digest
from reconciler.installations import is_under_way
from reconciler.journal import Journal
from reconciler.journal_file import JOURNAL_FILE
from reconciler.keys import MasterKey, read_key_file
from reconciler.lanes import Lanes
from reconciler.leading import Leadership, open_keeper
from reconciler.looked import Looked
from reconciler.metrics.registry import Metrics
from reconciler.pairing import with_pairing, with_renewal
from reconciler.repositories import BranchFiles, Repositories
from reconciler.running import Running
from reconciler.secret_exports import SecretExports
from reconciler.secret_targets import SecretTargets
from reconciler.secrets.cache import SecretCache
from reconciler.secrets.disk_cache import DiskCache
from reconciler.secrets.disk_cache_key import DiskCacheKey, load_or_make
from reconciler.secrets.refresh import OnChange, nobody
from reconciler.secrets.refused_logins import FILE_NAME, RefusedLogins
from reconciler.secrets.source import SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.settings import Settings
from reconciler.spec.model import SecretSource, Spec
from reconciler.spec_source import SpecCache
from reconciler.spec_write import SpecWriter
from reconciler.state_lock import not_alone, take_lock
from reconciler.status.branch import StatusBranch
from reconciler.status.conditions import Reason
from reconciler.status.documents import Recorded
from reconciler.superseded import Calls
from reconciler.sync.hub import Hub
from reconciler.sync.lasting import LastingCheckouts
from reconciler.tracing import forget_trace
from reconciler.verification import Verification

KEY_FILE = "master.key"
CACHE_DIRECTORY = "secret-cache"


def key_path(settings: Settings) -> Path:
    return settings.state_dir / KEY_FILE


def load_key(settings: Settings) -> MasterKey:
    """The master key from the settings, or from the state directory."""
    if settings.master_key is not None:
        return MasterKey.from_text(settings.master_key.reveal())
    return read_key_file(key_path(settings))


def as_settings_say(source: SecretSource, settings: Settings) -> SecretSource:
    """What this machine's settings change about a source of the spec."""
    if source.kind != "infisical":
        return source
    if not settings.infisical_enabled:
        source = msgspec.structs.replace(source, enabled=False)
    if (interval := settings.infisical_sync_interval) is not None:
        source = msgspec.structs.replace(source, refresh_interval=interval)
    return source


def open_secret_cache(settings: Settings) -> SecretCache:
    """In memory, and on disk as well where the settings ask for that. Raises SettingsError."""
    if not settings.secret_cache_on_disk:
        return SecretCache()
    if settings.secret_cache_key is not None:
        key = DiskCacheKey.from_text(settings.secret_cache_key.reveal())
    else:
        key = load_or_make(settings.state_dir / "secret-cache.key")
    return SecretCache(DiskCache(settings.state_dir / CACHE_DIRECTORY, key))


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Primary:
    """One reconciler on one state directory."""

    settings: Settings
    key: MasterKey
    repositories: Repositories
    status: StatusBranch
    operators: ControlBranch
    """Their decisions."""
    spec_writer: SpecWriter
    """Changes of the spec that are made for them."""
    journal: Journal
    run_context: RunContext
    now: Callable[[], datetime]
    directories: Directories
    """On this machine, that projects are synced from."""
    alone: bool
    """No other process is making a pass on this state directory."""
    _secret_cache: SecretCache
    _nursery: trio.Nursery
    """Of whoever opened the primary: what is started in it outlives the pass that needed it first."""
    lanes: Lanes = field(default_factory=Lanes)
    """How many steps run side by side."""
    specs: SpecCache = field(default_factory=SpecCache)
    bulletin: Bulletin = field(default_factory=Bulletin)
    """Told whenever something is another than before that people may be looking at."""
    notices: Bulletin = field(default_factory=Bulletin)
    """Told when there may be notifications to send."""
    metrics: Metrics = field(default_factory=Metrics)
    running: Running = field(default_factory=Running)
    """What agents are at right now."""
    calls: Calls = field(default_factory=Calls)
    """Everybody's "look now", for the waits of a pass."""
    arrivals: Arrivals = field(default_factory=Arrivals)
    """Who waits for secrets that another repository exports; told by webhooks."""
    spec: Spec | None = None
    """What the last pass found."""
    looked: Looked | None = None
    """What it found besides; None: there was none yet."""
    asked_last: AskedLast = field(default_factory=AskedLast)
    """What it asked agents."""
    leadership: Leadership | None = None
    """None where nothing is changed: then no lease is needed."""
    hub: Hub | None = None
    """The agents' end, from the first pass on whose spec has nodes."""
    lasting_checkouts: LastingCheckouts = field(default_factory=LastingCheckouts)
    enrolling: trio.Lock = field(default_factory=trio.Lock)
    """Held while who may connect is looked up and told to the hub, so that nothing older comes later."""
    _pace: Pace = field(default_factory=Pace)
    _store: tuple[str, SecretStore] | None = None
    """With the digest of the sources that it was made from."""
    _store_replaced: trio.Event = field(default_factory=trio.Event)
    _lasting: dict[Hashable, object] = field(default_factory=dict)
    """What secret sources must remember when the spec changes."""
    _noted: frozenset[str] = frozenset()

    @property
    def checkouts(self) -> Path:
        return self.settings.state_dir / "checkouts"

    def in_background(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Start something that outlives the pass, and must not raise."""
        self._nursery.start_soon(task, *arguments)

    def secret_sources(self, spec: Spec) -> dict[str, SecretSource]:
        """The sources of a spec as this machine's settings leave them."""
        return {name: as_settings_say(source, self.settings) for name, source in spec.secret_sources.items()}

    def secret_store(self, spec: Spec) -> SecretStore:
        """The sources of a spec. What they fetched outlives a change of the spec that still asks for it."""
        sources = self.secret_sources(spec)
        files = BranchFiles(
            self.repositories,
            spec.repositories,
            Verification(self.repositories, self.settings).check_branch,
        )
        places = {name: files.identity(name) for name in spec.repositories}
        key = digest([msgspec.to_builtins(sources), places])
        if self._store is None or self._store[0] != key:
            context = SourceContext.from_environ(
                self.settings.readable_environ(),
                files,
                self._lasting,
                RefusedLogins(self.settings.state_dir / FILE_NAME, self.key.hash_key),
            )
            self._store = key, SecretStore(sources, context=context, cache=self._secret_cache)
            self._store_replaced.set()
            self._store_replaced = trio.Event()
        return self._store[1]

    def clear_secret_cache(self) -> int:
        """Forget all that was fetched, on disk too, of earlier specs as well; says how many there were."""
        return self._secret_cache.clear(None)

    def forget_secrets(self, spec: Spec, source: str | None = None) -> int:
        """Forget what was fetched from a source, or from all, and what of it agents were shown."""
        self.asked_last.forget()
        return self.secret_store(spec).clear_cache(source)

    def read_files_again(self) -> None:
        """At the next use, all that sources of secrets read from files of this machine."""
        self._secret_cache.look_again()

    async def keep_secrets_fresh(self, on_change: OnChange = nobody) -> NoReturn:
        """Fetch secrets ahead of need, for ever, for the sources of whatever spec is the current one."""
        while True:
            replaced, store = self._store_replaced, self._store
            async with trio.open_nursery() as nursery:
                if store is not None:
                    nursery.start_soon(store[1].keep_fresh, on_change)
                await replaced.wait()
                nursery.cancel_scope.cancel()

    def new_notes(self, notes: Collection[str]) -> list[str]:
        """Those that the last pass of this process did not have: each is logged once, not in every pass."""
        new = [note for note in notes if note not in self._noted]
        self._noted = frozenset(notes)
        return new

    def secret_targets(self, spec: Spec) -> SecretTargets:
        """Access to the secret targets of a spec; all of them together keep GitHub's pace."""
        return SecretTargets(self.secret_store(spec), self._pace, self.settings.github_api_url)

    def secret_exports(self, spec: Spec) -> SecretExports:
        """The same for those that their source has to export."""
        store, api = self.secret_store(spec), self.settings.github_api_url
        return SecretExports(store, self._pace, self.arrivals, api)

    def github_reports(self, spec: Spec) -> GithubReports:
        """The same for what is told of releases there."""
        return GithubReports(self.secret_store(spec), self._pace, self.settings.github_api_url)

    async def fleet(self, spec: Spec, *, patience: float) -> Fleet | None:
        """The agents that this spec and the status branch know, the listener started; None without nodes."""
        self.metrics.keep_nodes(spec.nodes)
        if self.hub is not None:
            await enrol(self)  # also where no node is left: the agent of one that was there is to go
        if not spec.nodes:
            return None
        if self.hub is None:
            async with self.enrolling:
                hub = Hub(
                    address=self.settings.tcp_addr,
                    key=self.key.tls_key,
                    tls_dir=self.settings.tls_dir,
                    enrolments=await enrolled(self),
                    on_paired=self._record_pairing,
                    on_renewed=self._record_renewal,
                    epoch=await self.leadership.epoch() if self.leadership is not None else 0,
                    workers=self.settings.workers_for,
                )
                await self._nursery.start(_keep_open, hub)
                self.hub = hub
            if self.leadership is not None:
                self.leadership.on_epoch = hub.show_epoch
        return Fleet(
            self.hub,
            self.journal,
            patience=patience,
            running=self.running,
            metrics=self.metrics,
            tell=self.bulletin.tell,
        )

    async def _record_pairing(self, node: str, certificate: bytes, trust_on_first_use: bool) -> None:
        """Durable before the agent hears that it is paired: a successor must accept it too."""
        async with self.enrolling:  # who has read the status before must not undo it afterwards
            await self.status.publish(
                lambda recorded: with_pairing(
                    recorded, node, certificate, trust_on_first_use=trust_on_first_use, now=self.now()
                ),
                f"Pair {node}",
            )
        reason = Reason.TRUST_ON_FIRST_USE if trust_on_first_use else Reason.PAIRED
        with suppress(JournalUnavailable):  # history alone: the pairing stands
            await trio.to_thread.run_sync(self.journal.record_event, "paired", f"nodes/{node}", reason)
        self.bulletin.tell()

    async def _record_renewal(self, node: str, certificate: bytes, used: bool) -> None:
        """Another certificate of a node, before its agent hears of it; `used`: in place of the one before."""
        async with self.enrolling:
            await self.status.publish(
                lambda recorded: with_renewal(recorded, node, certificate, used=used),
                f"Let {node} use another certificate"
                if not used
                else f"Forget the old certificate of {node}",
            )
        if used:
            with suppress(JournalUnavailable):
                await trio.to_thread.run_sync(
                    self.journal.record_event, "renewed", f"nodes/{node}", Reason.PAIRED
                )
        self.bulletin.tell()


def open_repositories(settings: Settings) -> Repositories:
    """The mirrors in the state directory, which is made if it is not there."""
    for directory in (settings.state_dir, settings.state_dir / "mirrors"):
        # Code of one repository, run as the build user, must not read the mirrors of others.
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"{directory} cannot be made: {error.strerror}",
                hint="give a directory that can be written with --state-dir or TRUEUP_STATE_DIR",
            ) from None
    options = GitOptions(
        allow_local=settings.allow_local_repos,
        ssh_command=settings.git_ssh_command,
        askpass=str(settings.git_askpass) if settings.git_askpass is not None else None,
    )
    return Repositories(settings.state_dir / "mirrors", options)


async def read_status(settings: Settings, repositories: Repositories) -> Recorded:
    """The status files, from any machine that can read the repository; checked where there is a key."""
    await repositories.refresh(settings.require_status_repo())
    return await open_status(settings, repositories).read()


def open_status(settings: Settings, repositories: Repositories) -> StatusBranch:
    """The status branch to be read, as the mirror has it."""
    has_key = settings.master_key is not None or key_path(settings).exists()
    mirror = repositories.mirror(settings.require_status_repo())
    return StatusBranch(mirror, load_key(settings) if has_key else None)


@asynccontextmanager
async def open_primary(
    settings: Settings, *, exclusive: bool = True, standing: bool = False, journal: Journal | None = None
) -> AsyncIterator[Primary]:
    """A primary on the settings' state directory.

    With `exclusive`, as for a pass that changes something, no second one may run on that directory; whoever
    asks for it `standing` sees to the lease, which a single pass takes by itself. `journal`: of the primary
    that runs there, beside which this one only looks. Raises SettingsError if one runs, or if there is no
    master key.
    """
    url = settings.require_spec_repo()
    key = load_key(settings)
    repositories = open_repositories(settings)
    with ExitStack() as resources:
        lock = take_lock(settings)
        if lock is not None and exclusive:
            resources.callback(os.close, lock)
        elif lock is not None:
            os.close(lock)
        elif exclusive:
            raise not_alone(settings)
        if journal is None:
            path = settings.state_dir / JOURNAL_FILE
            journal = resources.enter_context(await trio.to_thread.run_sync(Journal, path))
        status_mirror = repositories.mirror(settings.require_status_repo())
        async with background() as nursery:
            primary = Primary(
                settings=settings,
                key=key,
                repositories=repositories,
                status=StatusBranch(status_mirror, key),
                operators=ControlBranch(repositories.mirror(url)),
                spec_writer=SpecWriter(repositories.mirror(url), settings.spec_branch),
                journal=journal,
                run_context=RunContext.of(settings),
                now=utc_now,
                directories=Directories(nursery.start_soon, (settings.state_dir, settings.tls_dir)),
                alone=lock is not None,
                _secret_cache=open_secret_cache(settings),
                _nursery=nursery,
            )
            resources.callback(primary.run_context.close)
            if exclusive:
                alive = partial(is_under_way, settings)
                await trio.to_thread.run_sync(journal.fail_interrupted_tasks, alive)
                await sweep(primary.checkouts)
                await trio.to_thread.run_sync(sweep_homes, primary.run_context)
                lease = open_keeper(settings, status_mirror, key)
                leads = primary.leadership = Leadership(lease, status_mirror, nursery, standing=standing)
                primary.status.permit = leads.acting
            try:
                yield primary
            finally:
                # Whoever used the primary has ended all that acted.
                if primary.leadership is not None:
                    await primary.leadership.release()
                if primary.hub is not None:
                    await primary.hub.take_leave()
                await primary.lasting_checkouts.close()


async def _keep_open(hub: Hub, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    forget_trace()  # the pass that needed it first started it
    async with hub:
        task_status.started()
        await trio.sleep_forever()
