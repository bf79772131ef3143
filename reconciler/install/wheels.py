"""What is copied to a host: a wheel of the agent made from this very installation, and its dependencies.

The wheel holds the package `agent` and the command `trueup-agent` alone: a host gets no code of the
reconciler. It is made here, without a build tool, as the agent is plain Python: a wheel is an archive with
three files of metadata.
"""

import base64
import hashlib
import io
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Final

import agent
from reconciler.child import Ended, run_child
from reconciler.errors import SettingsError, StepFailed
from reconciler.install.plan import LOCK, Found

NAME: Final = "trueup"
DOWNLOAD_DEADLINE: Final = 600.0
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The oldest time that an archive can say; the same input gives the same wheel."""

_WHEEL: Final = "Wheel-Version: 1.0\nGenerator: trueup\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_COMMANDS: Final = "[console_scripts]\ntrueup-agent = agent.cli:main\n"
_OLDEST_GLIBC: Final = 17
"""manylinux2014, also called manylinux_2_17, is the oldest that wheels are still made for."""


def agent_wheel() -> tuple[str, bytes]:
    """The wheel's file name and content. Raises SettingsError where trueup itself is not installed."""
    try:
        said, number = metadata(NAME), version(NAME)
        needed = [line for line in requires(NAME) or [] if "extra ==" not in line]
    except PackageNotFoundError:
        raise SettingsError(
            "trueup runs without being installed, and cannot be copied",
            hint="install it, or give --wheel FILE",
        ) from None
    head = {"Metadata-Version": "2.1", "Name": NAME, "Version": number, "Summary": said["Summary"] or ""}
    head["Requires-Python"] = said["Requires-Python"] or ">=3.11"
    lines = [f"{key}: {value}" for key, value in head.items()]
    lines += [f"Requires-Dist: {line}" for line in needed]
    info = f"{NAME}-{number}.dist-info"
    root = Path(agent.__file__).parent
    sources = sorted(path for path in root.rglob("*") if path.suffix == ".py" or path.name == "py.typed")
    files = {f"agent/{path.relative_to(root).as_posix()}": path.read_bytes() for path in sources}
    files[f"{info}/METADATA"] = ("\n".join(lines) + "\n").encode()
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    files[f"{info}/entry_points.txt"] = _COMMANDS.encode()
    return f"{NAME}-{number}-py3-none-any.whl", pack_wheel(files, info)


def pack_wheel(files: Mapping[str, bytes], info: str) -> bytes:
    """A wheel with these files, and the record of them that installers check."""
    record = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    record.append(f"{info}/RECORD,,")
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**files, f"{info}/RECORD": ("\n".join(record) + "\n").encode()}.items():
            member = zipfile.ZipInfo(name, _EPOCH)
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, content)
    return output.getvalue()


async def download(into: Path, host: Found, env: Mapping[str, str]) -> None:
    """Fetch here what the lock in `into` names, as wheels for the host's Python, machine and C library.

    The index, its certificates and proxies are those of pip's own settings. Raises StepFailed.
    """
    number = f"{host.python[0]}{host.python[1]}"
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--only-binary=:all:", f"--dest={into}", "--implementation=cp"),
        *(f"--python-version={host.python[0]}.{host.python[1]}", f"--abi=cp{number}"),
        *(f"--platform={tag}" for tag in platforms(host)),
        *("--no-deps", "--require-hashes", "--requirement", str(into / LOCK)),
    ]
    ran = await run_child(command, cwd=into, env=env, deadline=DOWNLOAD_DEADLINE, max_output=1 << 20)
    if not isinstance(ran, Ended) or ran.code:
        said = ran.stderr.strip().splitlines()[-1:] if isinstance(ran, Ended) else []
        raise StepFailed(
            f"what the agent needs could not be downloaded here: {(said or ['no answer'])[0]}",
            hint="see that pip reaches its index, or leave out --offline",
        )


def platforms(host: Found) -> Sequence[str]:
    """Tags of the wheels that a host can use, the newest first."""
    if host.glibc == (0, 0):
        return [f"musllinux_1_{minor}_{host.machine}" for minor in (2, 1)]
    newest = max(host.glibc[1], _OLDEST_GLIBC)
    tags = [f"manylinux_2_{minor}_{host.machine}" for minor in range(newest, _OLDEST_GLIBC - 1, -1)]
    return [*tags, f"manylinux2014_{host.machine}"]


def packed(directory: Path) -> bytes:
    """A tar archive of a directory's files."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(directory.iterdir()):
            member = tarfile.TarInfo(path.name)
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                archive.addfile(member, file)
    return output.getvalue()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
