"""Reading a spec's files from disk, for `trueup validate` and for editing it; a pass reads them from git."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from reconciler.errors import Problem, SettingsError, SpecInvalid
from reconciler.spec.load import SPEC_FILE, included_paths


def root_file(spec: Path) -> Path:
    """The first file of the spec at `spec`, which is that file or the directory that holds it."""
    return spec / SPEC_FILE if spec.is_dir() else spec


def read_spec_files(spec: Path) -> dict[str, bytes]:
    """The files of the spec at `spec`, a file or the directory that holds one, by path from its directory.

    The root file is under its own name, see `root_file`. Raises SpecInvalid if it is not there, and
    SettingsError if a file cannot be read.
    """
    root = root_file(spec)
    try:
        files = {root.name: root.read_bytes()}
        for path in included_paths(files[root.name], _files_below(root.parent), root=root.name):
            files[path] = (root.parent / path).read_bytes()
    except FileNotFoundError as error:
        raise _missing(root, error) from None
    except OSError as error:
        raise SettingsError(f"{error.filename}: {error.strerror}") from None
    return files


def _missing(root: Path, error: FileNotFoundError) -> SpecInvalid | SettingsError:
    if Path(str(error.filename)) == root:
        advice = "name the spec's file or its directory, or run `trueup init` to write a first one"
        return SpecInvalid([Problem(str(root), 1, 1, "", f"there is no such file; {advice}")])
    return SettingsError(f"{error.filename}: {error.strerror}")


def _files_below(directory: Path) -> Iterable[str]:
    """Links are left out: a pass does not follow them either, and they may lead anywhere."""
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and ".git" not in path.relative_to(directory).parts:
            yield path.relative_to(directory).as_posix()


def spec_repository_here(environ: Mapping[str, str]) -> str | None:
    """The `origin` of the checkout of a spec in which a command is run, where no setting names one.

    A checkout counts only if it has the spec file at its top: elsewhere nothing is guessed.
    """
    if environ.get("TRUEUP_SPEC_REPO"):
        return None
    for directory in (Path.cwd(), *Path.cwd().parents):
        if (directory / ".git").exists():
            return _origin(directory) if (directory / SPEC_FILE).is_file() else None
    return None


def _origin(checkout: Path) -> str | None:
    import git

    try:
        with git.Repo(checkout) as repository:
            return next((remote.url for remote in repository.remotes if remote.name == "origin"), None)
    except git.InvalidGitRepositoryError:
        return None
