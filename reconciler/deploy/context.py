"""What a task of a repository finds around it: its environment, a private home, and who it runs as."""

import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from reconciler.deploy.build_user import BuildUser, find_build_user, hand_over
from reconciler.deploy.orphans import MARK, Warden, home_prefix, sweep
from reconciler.secrets.values import Secret
from reconciler.settings import Settings

INVOKE_COMMAND = (sys.executable, "-u", "-P", "-m", "invoke")
"""trueup's own invoke. `-u`: lines are seen as they are printed; `-P`: a package
`invoke` in the repository does not take its place."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """How the primary runs code of repositories; the same for all tasks. Made from the settings."""

    base_environment: Mapping[str, str]
    """`Settings.child_environment()`: what every process gets, such as PATH and LANG."""
    scratch: Path
    """A directory in the state directory, in which private homes are made."""
    invoke_command: tuple[str, ...] = INVOKE_COMMAND
    build_user: BuildUser | None = None
    docker_environment: Mapping[str, str] = field(default_factory=dict)
    """`Settings.docker_environment()`: for docker's client alone."""
    warden: Warden | None = None
    """What ends the tasks should this process be killed; it begins with the first one."""

    @property
    def state_dir(self) -> Path:
        return self.scratch.parent

    @classmethod
    def of(cls, settings: Settings) -> "RunContext":
        """Raises SettingsError where the build user cannot be used."""
        return cls(
            base_environment=settings.child_environment(),
            scratch=settings.state_dir / "homes",
            invoke_command=settings.invoke_command or INVOKE_COMMAND,
            build_user=find_build_user(settings.build_user),
            docker_environment=settings.docker_environment(),
            warden=Warden(settings.state_dir / "homes"),
        )

    def close(self) -> None:
        """When no task runs any more, and none will."""
        if self.warden is not None:
            self.warden.end()


@dataclass(frozen=True, slots=True)
class Identity:
    """What a task is told about itself. A field that is None sets no variable."""

    environment: str | None = None
    service: str | None = None
    project: str | None = None
    tag: str | None = None
    revision: str | None = None
    """The commit id that is checked out."""

    def variables(self) -> dict[str, str]:
        named = {
            "TRUEUP_ENVIRONMENT": self.environment,
            "TRUEUP_SERVICE": self.service,
            "TRUEUP_PROJECT": self.project,
            "TRUEUP_TAG": self.tag,
            "TRUEUP_REVISION": self.revision,
        }
        return {name: value for name, value in named.items() if value is not None}


def task_environment(
    base: Mapping[str, str], declared: Mapping[str, str | Secret], identity: Identity, home: Path
) -> dict[str, str | Secret]:
    """Exactly what a task gets: the base, HOME, what the spec declares over both, and who it is.

    Nothing declared can change who the task is told to be, nor the mark by which a successor of this
    process would find it.
    """
    return {**base, "HOME": str(home), **declared, **identity.variables(), MARK: home.name}


@asynccontextmanager
async def private_home(context: RunContext) -> AsyncIterator[Path]:
    """An empty directory of mode 0700 that belongs to the user of the task; gone afterwards."""
    home = await trio.to_thread.run_sync(_make_home, context)
    try:
        yield home
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lambda: shutil.rmtree(home, ignore_errors=True))


def sweep_homes(context: RunContext) -> tuple[str, ...]:
    """End what killed primaries' tasks left running, and remove their homes. Blocks for some seconds
    where there is something to end; see `orphans`."""
    return sweep(context.scratch)


def _make_home(context: RunContext) -> Path:
    if context.warden is not None:
        context.warden.begin()
    context.scratch.mkdir(mode=0o711, parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix=home_prefix(), dir=context.scratch))
    if context.build_user is not None:
        hand_over(home, context.build_user, state_dir=context.state_dir)
    return home
