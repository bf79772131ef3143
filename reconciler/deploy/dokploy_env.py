"""The environment of a compose application in Dokploy: one text, in dotenv's format. Pure.

Facts, from Dokploy's repository (packages/server/src/utils/docker/utils.ts and utils/builders/compose.ts):
the text is read with the npm package dotenv 16.4.5 and written to the `.env` beside the compose file. That
reader keeps what stands in quotes as it is, but for `\\n` and `\\r` in double quotes; it has no escapes,
although a backslash before a quote hides it from the search for the end. It takes a carriage return for a
line's end. After reading, Dokploy replaces `${{...}}`.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from reconciler.secrets.errors import VariableUnusable

HASH_NAME: Final = "IAC_CONFIG_HASH"
"""The variable that holds the config hash of what is there."""

_HEAD = "# Written by trueup, which undoes changes made here. Seal "
_SEAL = re.compile(re.escape(_HEAD) + r"([0-9a-f]{64})")
_HASH_LINE = re.compile(rf"^\s*(?:export\s+)?{HASH_NAME}\s*=[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)
_LEGACY = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def render(variables: Mapping[str, str], config_hash: str, file: str) -> str:
    """The whole text: a seal over text and compose file, the variables, and last the hash.

    The seal stands beside the values that it is made of, so it gives nothing away. Raises VariableUnusable.
    """
    # Raised here and not where the value is looked at: a crash report shows the variables of each frame.
    for name in variables:
        if name == HASH_NAME:
            raise VariableUnusable(f"{name} is trueup's own and cannot be a variable of the spec")
        if not _NAME.fullmatch(name):
            raise VariableUnusable(f"Dokploy cannot take a variable of the name {name!r}")
    for name in filter(lambda name: _quoted(variables[name]) is None, variables):
        raise VariableUnusable(
            f"{name}: no quoting gives its value to Dokploy unchanged",
            hint="it has a carriage return, `${{`, a backslash at its end or before a quote, or all three "
            "kinds of quotes; encode it, in base64 for example",
        )
    lines = [f"{name}={_quoted(value)}\n" for name, value in sorted(variables.items())]
    text = "".join((*lines, f"{HASH_NAME}={config_hash}\n"))
    return f"{_HEAD}{_seal(text, file)}\n{text}"


def _quoted(value: str) -> str | None:
    if "\r" in value or "${{" in value or value.endswith("\\"):
        return None
    for mark in ("'", "`", '"'):
        expands = mark == '"' and ("\\n" in value or "\\r" in value)
        if mark not in value and not expands:
            return f"{mark}{value}{mark}"
    return None


def _seal(text: str, file: str) -> str:
    return hashlib.sha256(f"{len(text)}:{text}{file}".encode("utf-8", "surrogatepass")).hexdigest()


def hash_in(env: str) -> str | None:
    """The value of IAC_CONFIG_HASH, the last one; None where the text has none."""
    found = [line.strip("'\"`") for line in _HASH_LINE.findall(env)]
    return found[-1] if found else None


def is_legacy(value: str) -> bool:
    """Whether a hash is a bare SHA-256, as tasks of earlier setups computed it."""
    return _LEGACY.fullmatch(value) is not None


def is_as_written(env: str, file: str) -> bool:
    """Whether text and compose file are what one `render` sealed."""
    head, _, text = env.partition("\n")
    seal = _SEAL.fullmatch(head.rstrip("\r"))
    return seal is not None and seal[1] == _seal(text, file)
