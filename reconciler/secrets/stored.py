"""What the cache on disk holds of one list, as bytes, and how old it is by the clocks of then and now. Pure.

Format 1, before it is sealed: the length of a msgpack document in 4 bytes, the document, and zeros up to a
multiple of 4 KiB, so that a file's size does not tell how long a value is. What is sealed is bound to the
format's name and to the question that the list answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from reconciler.secrets.values import Secret

FORMAT = b"trueup-secret-cache-1\n"
PADDED_TO = 4096


@dataclass(frozen=True, slots=True)
class Clocks:
    """Readings of one moment. `boot` names this run of the machine and `uptime` counts its seconds, asleep
    too; an empty `boot` is one that is not known."""

    wall: float
    boot: str
    uptime: float


@dataclass(frozen=True, slots=True)
class Stored:
    """One list. `age`: seconds since the question, when `at` was read."""

    values: Mapping[str, Secret] = field(repr=False)
    retrieved_at: datetime
    age: float
    at: Clocks


class _Document(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    retrieved_at: datetime
    age: float
    wall: float
    boot: str
    uptime: float
    values: list[tuple[bytes, bytes]]

    def __repr__(self) -> str:
        return "_Document(***)"


def question_bytes(kind: str, question: object) -> bytes:
    """The same bytes for the same question in every process; the types of its parts are told apart."""
    return msgspec.json.encode([kind, _plain(question)])


def _plain(part: object) -> object:
    match part:
        case None | bool() | int() | float() | str():
            return part
        case msgspec.Struct():
            named = {name: _plain(getattr(part, name)) for name in sorted(part.__struct_fields__)}
            return {type(part).__name__: named}
        case tuple():
            return [_plain(one) for one in part]
        case frozenset():
            return {"set": sorted((_plain(one) for one in part), key=msgspec.json.encode)}
    raise TypeError(f"a question of secret sources has no {type(part).__name__}")


def binding(question: bytes, mark: bytes) -> bytes:
    """`mark`: of the credentials, of a fixed size."""
    return FORMAT + mark + question


def encode(stored: Stored) -> bytes:
    document = _Document(
        stored.retrieved_at,
        stored.age,
        stored.at.wall,
        stored.at.boot,
        stored.at.uptime,
        # As bytes: a text with half a character would end in an error that holds it.
        [(_bytes(name), _bytes(value.reveal())) for name, value in stored.values.items()],
    )
    data = msgspec.msgpack.encode(document)
    data = len(data).to_bytes(4, "big") + data
    return data + bytes(-len(data) % PADDED_TO)


def decode(data: bytes) -> Stored | None:
    """None: these are not the bytes of this format. No error that holds any of them gets out."""
    size = int.from_bytes(data[:4], "big")
    try:
        document = msgspec.msgpack.decode(data[4 : 4 + size], type=_Document)
        values = {_text(name): Secret(_text(value)) for name, value in document.values}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if document.retrieved_at.tzinfo is None:
        return None
    return Stored(
        values,
        document.retrieved_at,
        document.age,
        Clocks(document.wall, document.boot, document.uptime),
    )


def age_now(stored: Stored, now: Clocks) -> float | None:
    """Seconds since the question, by the clock that makes it older. None: a clock went back, so nobody knows.

    Within one run of the machine its uptime says it, whatever was done to the wall clock.
    """
    passed = [now.wall - stored.at.wall]
    if now.boot and now.boot == stored.at.boot:
        passed.append(now.uptime - stored.at.uptime)
    if not all(seconds >= 0 for seconds in (*passed, stored.age)):
        return None
    return stored.age + max(passed)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode()
