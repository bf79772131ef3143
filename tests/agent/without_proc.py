"""Gives away what is in a target, or changes its mode, as a process that has no /proc; prints why that fails.

Run as a program, in a mount namespace of its own, with the target and the path of a file in it.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from agent.changes import Write
from agent.failures import code_of, line_of
from agent.folders import OPEN_FOLDER
from agent.ignore import Ignore
from agent.index import file_entry, symlink_entry
from agent.scan import scan
from agent.writer import Writer


def told(deed: Callable[[], None]) -> tuple[str, str]:
    try:
        deed()
    except Exception as error:
        return code_of(error), line_of(error)
    return "", ""


def main(target: str, path: str) -> None:
    assert not Path("/proc/self").exists()
    root_fd = os.open(target, OPEN_FOLDER)
    writer = Writer(root_fd, scan(root_fd, Ignore(())).found, owners={"link": (1, 1)})
    writer.open_staging()
    link = Write(symlink_entry("link", mtime_ns=0, link=path))
    file = file_entry(path, mode=0o640, size=0, mtime_ns=0, blocks=b"")
    said = told(lambda: writer.make_links([link])), told(lambda: writer.touch([file]))
    writer.close()
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
