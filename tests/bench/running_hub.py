"""A primary's end of many agents, in a process of its own; started by `fleets.py`.

Its first line says where it listens. Then it answers each line on standard input, a JSON object: `enrol` says
who may connect; `connected` waits until so many nodes are, and tells when that was and what memory it takes.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import trio

import reconciler.serve  # noqa: F401 - a primary has all of it in memory
from reconciler.hardening import allow_open_files
from reconciler.keys import MasterKey
from reconciler.settings_values import Address
from reconciler.sync.enrolment import Enrolment
from reconciler.sync.hub import Hub

PATIENCE = 300.0


async def remembered(node: str, certificate: bytes, trust_on_first_use: bool) -> None:
    """Nobody pairs here."""


def used() -> dict[str, float]:
    """Bytes that are resident, now and at most, and seconds of a processor."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {key: value for key, _, value in (line.partition(":") for line in lines)}
    now, most = (int(found[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return {"rss": now, "peak": max(now, most), "cpu": time.process_time()}


async def answer(hub: Hub, order: dict[str, Any]) -> dict[str, object]:
    begin = time.perf_counter()
    if "enrol" in order:
        await hub.update(
            Enrolment(node, token_key, certificate_der=base64.b64decode(certificate))
            for node, token_key, certificate in order["enrol"]
        )
    elif "connected" in order:
        with trio.move_on_after(PATIENCE):
            while len(hub.connected()) < order["connected"]:
                await hub.wait_change()
    return {"connected": len(hub.connected()), "seconds": time.perf_counter() - begin, **used()}


def key_in(where: Path) -> MasterKey:
    where.mkdir(mode=0o700, exist_ok=True)
    if not (where / "key").exists():
        (where / "key").write_text(MasterKey.generate().to_text())
    return MasterKey.from_text((where / "key").read_text())


async def main(where: Path, port: int) -> None:
    """The key is the same at each start."""
    allow_open_files()
    logging.disable()
    hub = Hub(
        address=Address("127.0.0.1", port),
        key=key_in(where).tls_key,
        tls_dir=where / "tls",
        on_paired=remembered,
    )
    async with hub:
        say({"port": hub.addresses[0].port, "fingerprint": hub.fingerprint})
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            say(await answer(hub, json.loads(line)))


def say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
