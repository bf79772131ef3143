"""Stands in for sops: the few words of its command line that trueup and its tests use, with age keys only.

    python sops_double.py encrypt --age RECIPIENT --input-type TYPE --output-type TYPE /dev/stdin
    python sops_double.py decrypt --input-type TYPE --output-type json /dev/stdin

As sops does, it leaves names in the clear, encrypts each value, keeps a checksum of all in its metadata,
finds keys through SOPS_AGE_KEY and SOPS_AGE_KEY_FILE, and ends with sops' exit codes. As sops has done, it
quotes what it decrypted on standard error. Its files are not sops' own.
"""

import argparse
import base64
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pyrage
import yaml

NO_METADATA, DAMAGED, MAC_MISMATCH, NO_KEY = 1, 25, 51, 128
_METADATA = "sops"


def _fail(code: int, text: str) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(code)


def _read_lines(text: str) -> dict[str, Any]:
    """Of a dotenv or ini file; quotes are a part of the value, `\\n` is a newline."""
    found: dict[str, Any] = {}
    section = found
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif equals and not line.startswith("#"):
            section[name.strip()] = value.strip().replace("\\n", "\n")
    return found


def _write_lines(tree: dict[str, Any]) -> str:
    plain = {name: value for name, value in tree.items() if not isinstance(value, dict)}
    lines = [f"{name}={value}" for name, value in plain.items()]
    for name, section in tree.items():
        if isinstance(section, dict):
            lines += [f"[{name}]", *(f"{key}={value}" for key, value in section.items())]
    return "\n".join(lines) + "\n"


_READ: dict[str, Callable[[str], Any]] = {
    "yaml": yaml.safe_load,
    "json": json.loads,
    "dotenv": _read_lines,
    "ini": _read_lines,
}
_WRITE: dict[str, Callable[[Any], str]] = {
    "yaml": lambda tree: yaml.safe_dump(tree, sort_keys=False, width=2**31),
    "json": lambda tree: json.dumps(tree, indent="\t"),
    "dotenv": _write_lines,
    "ini": _write_lines,
}


def _each(tree: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(tree, dict):
        return {name: _each(value, change) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_each(value, change) for value in tree]
    return change(tree)


def _sum_of(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree).encode()).hexdigest()


def encrypt(text: str, recipient: str, input_type: str) -> str:
    to = pyrage.x25519.Recipient.from_str(recipient)

    def seal(value: Any) -> str:
        data = pyrage.encrypt(json.dumps(value).encode(), [to])
        return f"ENC[{base64.b64encode(data).decode()}]"

    tree = _READ[input_type](text)
    return _WRITE[input_type]({**_each(tree, seal), _METADATA: seal(_sum_of(tree))})


def decrypt(text: str, identities: list[Any], input_type: str) -> str:
    tree = _READ[input_type](text)
    if not isinstance(tree, dict) or _METADATA not in tree:
        _fail(NO_METADATA, "sops metadata not found")

    def unseal(value: str) -> Any:
        try:
            return json.loads(pyrage.decrypt(base64.b64decode(value[4:-1]), identities))
        except (pyrage.DecryptError, ValueError) as error:
            if "No matching keys" in str(error):
                _fail(NO_KEY, "Failed to get the data key required to decrypt the SOPS file.")
            _fail(DAMAGED, f"Could not decrypt value: {value}")

    mac = unseal(tree.pop(_METADATA))
    plain = _each(tree, unseal)
    if _sum_of(plain) != mac:
        _fail(MAC_MISMATCH, f"MAC mismatch. File has {mac}, computed for {plain}")
    if input_type == "ini":
        sections = {name: value for name, value in plain.items() if isinstance(value, dict)}
        top = {name: value for name, value in plain.items() if name not in sections}
        plain = {"DEFAULT": top, **sections}
    return json.dumps(plain, indent="\t")


def _identities() -> list[Any]:
    path = os.environ.get("SOPS_AGE_KEY_FILE")
    text = os.environ.get("SOPS_AGE_KEY", "") + "\n" + (Path(path).read_text() if path else "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [pyrage.x25519.Identity.from_str(line) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["encrypt", "decrypt"])
    parser.add_argument("--age")
    parser.add_argument("--input-type", choices=list(_READ), required=True)
    parser.add_argument("--output-type", required=True)
    parser.add_argument("file", choices=["/dev/stdin"])
    words = parser.parse_args()
    text = sys.stdin.read()
    if words.verb == "encrypt":
        sys.stdout.write(encrypt(text, words.age, words.input_type))
    else:
        sys.stdout.write(decrypt(text, _identities(), words.input_type))


if __name__ == "__main__":
    main()
