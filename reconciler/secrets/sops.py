"""Kind `sops`: a file that sops encrypted, opened by the sops that is installed on the primary.

The file goes in on standard input and comes out as JSON on standard output, so that nothing decrypted is
written anywhere. What sops says on standard error is never shown, as it can quote the file.
"""

import json
import re
import shutil
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import trio

from reconciler.child import Ended, Killed, NotStarted, run_child
from reconciler.secrets.credentials import decoded
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.secret_file import Content, SecretFile
from reconciler.secrets.source import SourceContext
from reconciler.secrets.values import MASK, Secret
from reconciler.spec.model import SecretSource, SopsSettings
from reconciler.spec.secret_model import SOPS_TYPES

MAX_OUTPUT: Final = 8 * 1024 * 1024
"""Bytes of decrypted JSON: a whole file of escapes is six times as long there."""

# What sops needs to find its keys, and to reach services that keep some. The primary's own secrets are not
# in what sources see of the environment.
_PREFIXES: Final = ("SOPS_", "AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "VAULT_")
_NAMES: Final = frozenset({
    *("PATH", "HOME", "GNUPGHOME", "XDG_CONFIG_HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
})  # fmt: skip

_NO_KEY, _MAC_MISMATCH, _MAC_NOT_FOUND = 128, 51, 52
_DECRYPTING_MAC, _DECRYPTING_TREE = 24, 25
_NO_METADATA: Final = "sops metadata not found"
_NETWORK: Final = re.compile(
    r"dial tcp|no such host|connection (?:refused|reset)|i/o timeout|deadline exceeded|TLS handshake"
    r"|code = Unavailable|\b(?:429|50[0234])\b",
)
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}")


class _Environment(dict[str, str]):
    """What sops gets. Keys may be in it, so that a traceback must not show it."""

    def __repr__(self) -> str:
        return MASK


@dataclass(frozen=True, slots=True)
class _Problem:
    text: str
    hint: str


class SopsSource:
    """Which keys open the file is between sops and the file; see the environment it is given above."""

    def __init__(self, source: SecretSource, context: SourceContext) -> None:
        assert isinstance(source.settings, SopsSettings)
        self._name = source.name
        self._settings = source.settings
        self._context = context
        self._file = SecretFile(source.settings.file, source.settings.repository, context.files)

    def cache_key(self, _environment: str, /) -> Hashable:
        return self._settings, self._file.identity

    async def version(self) -> Hashable | None:
        return await self._file.version()

    async def fetch(self, _environment: str, /) -> Mapping[str, Secret]:
        input_type = SOPS_TYPES[PurePosixPath(self._settings.file).suffix]
        environment = _environment_for_sops(self._context.credentials.environ)
        program = await trio.to_thread.run_sync(shutil.which, "sops", 1, environment.get("PATH", ""))
        if program is None:
            raise SourceRefused(
                f"secret source {self._name}: sops is not installed on the primary",
                hint="install it (https://github.com/getsops/sops) or use kind age",
            )
        content = await self._file.read(self._name)
        async with self._context.limiter:
            ended = await self._decrypt(program, input_type, content, environment)
        if ended.code:
            raise self._failed(ended)
        values = await trio.to_thread.run_sync(_parsed, ended.stdout, input_type)
        if isinstance(values, _Problem):
            raise self._refused(values.text, values.hint)
        return values

    async def _decrypt(
        self, program: str, input_type: str, content: Content, environment: _Environment
    ) -> Ended:
        outcome = await run_child(
            # Versions before 3.10 take no input without a name.
            [program, "decrypt", "--input-type", input_type, "--output-type", "json", "/dev/stdin"],
            cwd=Path.cwd(),
            env=environment,
            deadline=self._context.timeouts.total,
            max_output=MAX_OUTPUT,
            stdin=content.data,
        )
        match outcome:
            case NotStarted(problem=problem):
                raise SourceDown(
                    f"secret source {self._name}: {program} cannot be started: {problem}",
                    hint="install it anew (https://github.com/getsops/sops)",
                )
            case Killed(why="output"):
                raise self._refused(f"more than {MAX_OUTPUT} bytes decrypted", "split the file")
            case Killed():
                raise SourceDown(
                    f"secret source {self._name}: {self._file.where}: sops gave no answer within "
                    f"{self._context.timeouts.total:g} s",
                    hint="is the service that keeps its key reachable from the primary?",
                )
            case Ended():
                return outcome

    def _failed(self, ended: Ended) -> SourceDown | SourceRefused:
        """By its exit code, and by fixed words of standard error, which is shown to nobody."""
        code = ended.code
        if code == _NO_KEY and _NETWORK.search(ended.stderr):
            return SourceDown(
                f"secret source {self._name}: {self._file.where}: sops cannot reach what keeps its key",
                hint=self._look,
            )
        if code == _NO_KEY:
            return self._refused(
                "sops has no key that opens it", "give the primary one (SOPS_AGE_KEY_FILE, GNUPGHOME, …)"
            )
        if code in (_MAC_MISMATCH, _MAC_NOT_FOUND):
            return self._refused(
                "it was changed by something else than sops (MAC mismatch)", "undo that; use `sops edit`"
            )
        if code in (_DECRYPTING_MAC, _DECRYPTING_TREE):
            return self._refused("it is damaged: a value in it cannot be decrypted", self._look)
        if code == 1 and _NO_METADATA in ended.stderr:
            return self._refused("it is not a file that sops encrypted", "encrypt it: sops encrypt -i FILE")
        if code < 0:
            return SourceDown(f"secret source {self._name}: sops was ended by signal {-code}")
        return self._refused(f"sops cannot read it (exit code {code})", self._look)

    @property
    def _look(self) -> str:
        return f"run `sops decrypt {self._settings.file}` on the primary to see what it says"

    def _refused(self, problem: str, hint: str) -> SourceRefused:
        return SourceRefused(f"secret source {self._name}: {self._file.where}: {problem}", hint=hint)


def _environment_for_sops(given: Mapping[str, str]) -> _Environment:
    kept = _Environment(
        {name: value for name, value in given.items() if name in _NAMES or name.startswith(_PREFIXES)}
    )
    kept["SOPS_DISABLE_VERSION_CHECK"] = "1"
    return kept


def _parsed(output: bytes, input_type: str) -> dict[str, Secret] | _Problem:
    """In a worker thread, so that plain text never stands in a frame that an error passes through."""
    text = decoded(output)
    try:
        found: Any = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return _Problem("it does not hold a map of names to texts", "give it names at the top")
    if input_type == "ini":
        # sops' name for what stands before the first section.
        sections = sorted(name for name, section in found.items() if name != "DEFAULT" and section)
        if sections:
            return _Problem("it has sections; one flat map of names is needed", "remove them")
        found = found.get("DEFAULT", {})
    for name, value in found.items():
        if not isinstance(value, str):
            shown = name if _WORD.fullmatch(name) else "one of its names"
            kind = "a map or a list" if isinstance(value, dict | list) else "a number, a boolean or nothing"
            return _Problem(f"{shown}: a text is needed, not {kind}", "quote it, at the top level")
    return {name: Secret(value) for name, value in found.items()}
