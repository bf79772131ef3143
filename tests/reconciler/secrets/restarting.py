"""A primary that starts again, with its cache of secrets on disk and the clocks of its host."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from reconciler.secrets.cache import SecretCache
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.disk_cache import DiskCache
from reconciler.secrets.disk_cache_key import DiskCacheKey
from reconciler.secrets.freshness import SourceState
from reconciler.secrets.source import SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.secrets.stored import Clocks, Stored
from reconciler.secrets.values import Secret
from reconciler.spec.model import SecretSource
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import VALUE, context_for, infisical

WALL = 1_700_000_000.0
KEY = DiskCacheKey(b"k" * 32)
MARK = KEY.mark([Secret("id"), Secret("secret")])


@dataclass
class Machine:
    """A primary's host whose clocks the test sets; `start` is what a new process would do."""

    directory: Path
    clocks: Clocks = field(default_factory=lambda: Clocks(WALL, "boot-1", 1000.0))
    key: DiskCacheKey = KEY

    def disk(self) -> DiskCache:
        """The cache as a new process opens it."""
        return DiskCache(self.directory, self.key, clocks=lambda: self.clocks)

    def start(self, double: InfisicalDouble, *sources: SecretSource, **environ: str) -> SecretStore:
        specs = sources or (infisical(double),)
        variables = {"ID": double.client_id, "SECRET": double.client_secret, **environ}
        context = SourceContext(Credentials(variables), utc_now=context_for(double).utc_now)
        return SecretStore({one.name: one for one in specs}, context=context, cache=SecretCache(self.disk()))

    def passes(self, seconds: float, *, wall: float | None = None, rebooted: bool = False) -> None:
        """Time passes; the wall clock says `wall` of it where somebody sets it meanwhile."""
        was = self.clocks
        boot, uptime = ("boot-2", seconds) if rebooted else (was.boot, was.uptime + seconds)
        self.clocks = Clocks(was.wall + (seconds if wall is None else wall), boot, uptime)

    @property
    def files(self) -> list[Path]:
        return sorted(self.directory.iterdir())


async def state(store: SecretStore, name: str = "prod") -> SourceState:
    """What the source is in after it gave what the double of `filled` has."""
    values = await store.values(name, "production")
    assert values["KEY"].value.reveal() == VALUE
    return store.freshness()[name].state


def stored(machine: Machine, value: str = VALUE) -> Stored:
    """An answer to some question, retrieved now."""
    return Stored({"KEY": Secret(value)}, datetime(2026, 1, 1, tzinfo=UTC), 1.0, machine.clocks)


def save(machine: Machine, question: bytes = b"q", value: str = VALUE) -> Path:
    """Write an answer to the question, into the file that is returned."""
    before = set(machine.files) if machine.directory.exists() else set()
    disk = machine.disk()
    disk.max_age = 86_400
    disk.save(question, MARK, stored(machine, value), disk.drops(question))
    [new] = set(machine.files) - before
    return new


def load(machine: Machine, question: bytes = b"q") -> dict[str, str] | None:
    """The answer to the question as a new process finds it."""
    disk = machine.disk()
    disk.max_age = 86_400
    found = disk.load(question, MARK)
    return None if found is None else {name: value.reveal() for name, value in found[0].values.items()}
