"""The peer Syncthing: two of them on loopback, with all defaults but for what leads out of this machine.

One has the source and sends only, the other the target and receives only. Neither watches its directory: a
run asks both to look, as a run of rsync or trueup does. It has ended when the sender knows that the receiver
has everything.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.bench.peers import Copied, PeerMissing
from tests.bench.rsync import find_programs
from tests.ports import free_port

_POLL_SECONDS = 0.02
_START_DEADLINE = 60.0
_COPY_DEADLINE = 1800.0
_SCAN_TIMEOUT = httpx.Timeout(_COPY_DEADLINE)

ALONE = {
    "globalAnnounceEnabled": False,
    "localAnnounceEnabled": False,
    "relaysEnabled": False,
    "natEnabled": False,
    "urAccepted": -1,
    "crashReportingEnabled": False,
    "autoUpgradeIntervalH": 0,
    "startBrowser": False,
    "announceLANAddresses": False,
    "stunKeepaliveStartS": 0,
}


@dataclass(frozen=True)
class Device:
    id: str
    pid: int
    api: httpx.Client

    def get(self, path: str, **parameters: str) -> Any:
        return self.api.get(path, params=parameters).raise_for_status().json()

    def patch(self, path: str, change: Mapping[str, object]) -> None:
        self.api.patch(path, json=change).raise_for_status()

    def put(self, path: str, document: Mapping[str, object]) -> None:
        self.api.put(path, json=document).raise_for_status()

    def status(self, folder: str) -> Any:
        return self.get("/rest/db/status", folder=folder)


class Syncthing:
    name = "Syncthing"
    # It keeps neither owners nor the times of directories.
    compare_options = ("--omit-dir-times", "--no-owner", "--no-group")
    first_copies_only = False

    def __init__(self, sender: Device, receiver: Device) -> None:
        self._sender = sender
        self._receiver = receiver
        self._first = False
        self._number = 0

    @property
    def _folder(self) -> str:
        """Each has a name of its own: what it knows of one is kept after the folder is removed."""
        return f"bench-{self._number}"

    def processes(self) -> Sequence[int]:
        return self._sender.pid, self._receiver.pid

    def prepare(self, source: Path, target: Path) -> None:
        self._number += 1
        devices = [{"deviceID": device.id} for device in (self._sender, self._receiver)]
        places = ((self._sender, source, "sendonly"), (self._receiver, target, "receiveonly"))
        for device, path, kind in places:
            device.put(
                f"/rest/config/folders/{self._folder}",
                {
                    "id": self._folder,
                    "path": str(path),
                    "type": kind,
                    "devices": devices,
                    "paused": True,
                    # No file of its own in the trees.
                    "markerName": ".",
                    "fsWatcherEnabled": False,
                    "rescanIntervalS": 0,
                },
            )
        self._first = True

    def forget(self, source: Path, target: Path) -> None:
        for device in (self._sender, self._receiver):
            device.api.delete(f"/rest/config/folders/{self._folder}").raise_for_status()

    def copy(self, source: Path, target: Path) -> Copied:
        begin = time.perf_counter()
        if self._first:
            # It looks by itself when it begins.
            for device in (self._receiver, self._sender):
                device.patch(f"/rest/config/folders/{self._folder}", {"paused": False})
            self._wait(self._has_looked)
        else:
            for device in (self._receiver, self._sender):
                device.api.post(
                    "/rest/db/scan", params={"folder": self._folder}, timeout=_SCAN_TIMEOUT
                ).raise_for_status()
        self._first = False
        scanned = time.perf_counter()
        self._wait(self._is_complete)
        return Copied(time.perf_counter() - begin, scanned - begin)

    def _has_looked(self) -> bool:
        """No source is empty."""
        status = self._sender.status(self._folder)
        return bool(status["state"] == "idle" and status["localFiles"])

    def _is_complete(self) -> bool:
        """By what the sender knows of the receiver, and by what that says of itself."""
        completion = self._sender.get("/rest/db/completion", folder=self._folder, device=self._receiver.id)
        if completion["completion"] != 100 or completion["needItems"] or completion["needDeletes"]:
            return False
        status = self._receiver.status(self._folder)
        return bool(status["state"] == "idle" and not status["needTotalItems"] and status["globalFiles"])

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _COPY_DEADLINE
        while not done():
            if time.monotonic() > deadline:
                raise RuntimeError(f"Syncthing did not get done in {_COPY_DEADLINE:.0f} s")
            time.sleep(_POLL_SECONDS)


@contextmanager
def syncthing(private: Path) -> Iterator[Syncthing]:
    """Start both and let them connect; end them at exit."""
    program = find_programs("syncthing", packages="syncthing")["syncthing"]
    private.mkdir(mode=0o700)
    started: list[subprocess.Popen[bytes]] = []
    devices: list[Device] = []
    ports = [free_port(), free_port()]
    try:
        for number, port in enumerate(ports):
            home = private / f"home-{number}"
            process, device = _start(program, home, port)
            started.append(process)
            devices.append(device)
        for device, other, port in ((devices[0], devices[1], ports[1]), (devices[1], devices[0], ports[0])):
            address = f"tcp://127.0.0.1:{port}"
            device.put(f"/rest/config/devices/{other.id}", {"deviceID": other.id, "addresses": [address]})
        _wait_until_connected(devices[0], devices[1].id)
        yield Syncthing(devices[0], devices[1])
    finally:
        for device in devices:
            device.api.close()
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(_START_DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(program: str, home: Path, port: int) -> tuple[subprocess.Popen[bytes], Device]:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "STNODEFAULTFOLDER": "1"}
    generate = [program, "generate", f"--home={home}", "--no-default-folder", "--skip-port-probing"]
    subprocess.run(generate, env=environment, check=True, capture_output=True)
    api_port = free_port()
    serve = [program, "serve", f"--home={home}", "--no-browser", "--no-restart", "--no-upgrade"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*serve, f"--gui-address=127.0.0.1:{api_port}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    key = re.search(r"<apikey>(.+)</apikey>", (home / "config.xml").read_text())
    assert key
    api = httpx.Client(
        base_url=f"http://127.0.0.1:{api_port}", headers={"X-API-Key": key[1]}, timeout=_START_DEADLINE
    )
    deadline = time.monotonic() + _START_DEADLINE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            id = api.get("/rest/system/status").raise_for_status().json()["myID"]
        except httpx.HTTPError:
            time.sleep(0.05)
            continue
        device = Device(id, process.pid, api)
        device.patch("/rest/config/options", {**ALONE, "listenAddresses": [f"tcp://127.0.0.1:{port}"]})
        return process, device
    process.kill()
    process.wait()
    raise PeerMissing(f"Syncthing does not start: {(home / 'log').read_text()[-300:]}")


def _wait_until_connected(device: Device, other: str) -> None:
    deadline = time.monotonic() + _START_DEADLINE
    while time.monotonic() < deadline:
        if device.get("/rest/system/connections")["connections"].get(other, {}).get("connected"):
            return
        time.sleep(0.1)
    raise PeerMissing("two Syncthings on this machine do not connect")
