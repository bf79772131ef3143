"""Passes in one process, the first not counted, as in a primary that serves; started by `passes.py`."""

from __future__ import annotations

import json
import os
import resource
import sys
import time

import trio

from reconciler.primary import open_primary
from reconciler.reconcile import reconcile
from reconciler.settings import load_settings


async def main(runs: int) -> None:
    seconds = []
    steps = 0
    async with open_primary(load_settings(os.environ, {})) as primary:
        for _ in range(runs + 1):
            begin = time.perf_counter()
            done = await reconcile(primary, patience=0)
            seconds.append(time.perf_counter() - begin)
            steps += len(done.outcomes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds[1:], "steps": steps, "peak_rss": peak}))


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
