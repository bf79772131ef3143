"""A remote over https in a process of its own; its first line says where. Ends when its input does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.githttps import git_over_https


def main(root: Path) -> None:
    with git_over_https(root, root) as forge:
        print(json.dumps({"url": forge.url, "certificate": str(forge.certificate)}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
