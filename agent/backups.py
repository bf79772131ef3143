"""Gives a local edit a second name beside it, under which it stays when something else takes its place."""

import datetime
import errno
import itertools
import os
from collections.abc import Iterable

from agent.filenames import named
from agent.folders import Folders
from agent.index import BACKUP_MARK, MAX_NAME_BYTES
from agent.staging import shorten


def save_beside(folders: Folders, path: str) -> str:
    """Saves what is at `path`; the path where it is saved. The first name is then free to be replaced."""
    above, name = folders.locate(path)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in itertools.count():
        mark = f"{BACKUP_MARK}{now}" + (f"-{number}" if number else "")
        spare = shorten(name, MAX_NAME_BYTES - len(mark)) + mark
        try:
            os.link(name, spare, src_dir_fd=above, dst_dir_fd=above, follow_symlinks=False)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            os.rename(name, spare, src_dir_fd=above, dst_dir_fd=above)
        return f"{path.rpartition('/')[0]}/{spare}".lstrip("/")
    raise AssertionError("numbers do not end")


def told_of_edits(kept: Iterable[str], backups: Iterable[str]) -> list[str]:
    """What a report warns of: paths of local edits that stay, and those that they were saved as."""
    return [
        *(f"the local edit of {path!r} was kept" for path in sorted(kept)),
        *(f"a local edit was saved as {named(path)}" for path in sorted(backups)),
    ]
