"""Reading a spec's files from disk, for `trueup validate` and for editing it; a pass reads them from git."""

from collections.abc import Iterable
from pathlib import Path

from reconciler.errors import SettingsError
from reconciler.spec.load import SPEC_FILE, included_paths


def read_spec_files(spec: Path) -> dict[str, bytes]:
    """The files of the spec at `spec`, a file or the directory that holds one, by path relative to it.

    The root file is always under the name `trueup.yaml`. Raises SettingsError if it cannot be read.
    """
    root = spec / SPEC_FILE if spec.is_dir() else spec
    try:
        files = {SPEC_FILE: root.read_bytes()}
        for path in included_paths(files[SPEC_FILE], _files_below(root.parent)):
            files[path] = (root.parent / path).read_bytes()
    except FileNotFoundError as error:
        return _missing(root, error)
    except OSError as error:
        raise SettingsError(f"{error.filename}: {error.strerror}") from None
    return files


def _missing(root: Path, error: FileNotFoundError) -> dict[str, bytes]:
    # A missing root is the loader's to report: it is the same fault in a repository.
    if Path(str(error.filename)) == root:
        return {}
    raise SettingsError(f"{error.filename}: {error.strerror}") from None


def _files_below(directory: Path) -> Iterable[str]:
    for path in directory.rglob("*"):
        if path.is_file() and ".git" not in path.relative_to(directory).parts:
            yield path.relative_to(directory).as_posix()
