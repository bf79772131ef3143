"""The demo's own rules; that the whole of it works, `tasks.py ci` shows by running it."""

import os
import pty
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys
from pathlib import Path
from reconciler.demo import _Demo
demo = _Demo(Path(sys.argv[1]))
demo.make_repositories()
demo._git("-C", sys.argv[1] + "/app", "show", "HEAD:tasks.py")
"""


def test_nothing_waits_for_a_key_on_a_terminal(tmp_path: Path) -> None:
    pagers = tmp_path / "bin"
    pagers.mkdir()
    for name in ("less", "more", "pager"):
        (pagers / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/paged\nexec cat\n")
        (pagers / name).chmod(0o755)
    terminal, end = pty.openpty()
    environment = {**os.environ, "PATH": f"{pagers}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdin=end, stdout=end, stderr=end, env=environment
    ) as process:
        os.close(end)
        shown = b""
        try:
            while chunk := os.read(terminal, 65536):
                shown += chunk
        except OSError:  # what a terminal says that nobody has open any more
            pass
        finally:
            os.close(terminal)
        assert process.wait(timeout=60) == 0, shown
    assert b"def greet" in shown
    assert not (tmp_path / "paged").exists()
