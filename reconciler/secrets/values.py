"""Secret values: a type that shows `***` wherever it is printed, and where a value came from."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn

from reconciler.hashing import fingerprint

MASK = "***"

MAX_MARKS = 10_000
"""Fingerprints that one secret remembers."""

_NO_OFFSET = timedelta(0)


class Secret:
    """A text that no `repr`, `str`, `format` or pickle gives away; `reveal` is the only way out.

    Copies within the process are the secret itself. What is pickled is the mask alone, a `Masked`. JSON and
    msgpack refuse it as they do every class of ours; with `default=str` they have `***`.
    """

    __slots__ = ("__marks", "__value")

    def __init__(self, value: str) -> None:
        self.__value = value
        self.__marks: dict[tuple[bytes, str, str], str] | None = None
        """Fingerprints that were taken: they are asked for again in each pass, and go with the secret."""

    def reveal(self) -> str:
        """The text itself: for a child's environment, a rendered file or a fingerprint, nothing else."""
        return self.__value

    def fingerprint(self, *question: *tuple[bytes, str, str]) -> str:
        """What may be published of it: `hashing.fingerprint` for a hash key, a target and a name."""
        marks = self.__marks
        if marks is None or len(marks) >= MAX_MARKS:
            marks = self.__marks = {}
        mark = marks.get(question)
        if mark is None:
            hash_key, target, name = question
            mark = marks[question] = fingerprint(hash_key, target=target, name=name, value=self.__value)
        return mark

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.__value == other.__value

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, _memo: object) -> "Secret":
        return self

    def __reduce_ex__(self, _protocol: object) -> tuple[type["Masked"], tuple[()]]:
        return Masked, ()


class Masked:
    """What comes out of a pickled `Secret`. There is nothing to reveal, so that no `***` is ever deployed."""

    __slots__ = ()

    def reveal(self) -> NoReturn:
        raise TypeError("a secret does not travel by pickle; this is only its mask")

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__


def revealed(value: str | Secret) -> str:
    """The text of what may be a secret or not; as careful a step as `Secret.reveal`."""
    return value.reveal() if isinstance(value, Secret) else value


_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def is_text(text: str) -> bool:
    """Whether it has a UTF-8 form. To be asked first: an encode that fails raises with all of it inside."""
    return text.isascii() or _HALF_CHARACTER.search(text) is None


class Plain(dict[str, str]):
    """Values in the clear on their way into a file. Printed, as a local variable in a crash report for one,
    it shows names only; JSON and YAML have all of it."""

    def __repr__(self) -> str:
        return f"Plain(names={tuple(self)!r})"

    __str__ = __repr__

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        yield "names", tuple(self)

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("values in the clear cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class SecretValue:
    """One secret with its provenance.

    `source` is the kind that delivered it: `infisical`, `cache`, `env_file`, `environ`, ...
    `origin` is the name of the source in the spec. `is_cached` is true of what came from `cache` and of
    nothing else: a contradiction is refused with ValueError, as is a time that is not in UTC. `is_stale` and
    `is_fallback` mark a value that may serve, but that must not cause a deploy by itself.
    """

    key: str
    value: Secret
    environment: str
    source: str
    is_cached: bool
    retrieved_at: datetime
    origin: str = ""
    is_stale: bool = False
    is_fallback: bool = False

    def __post_init__(self) -> None:
        if self.is_cached != (self.source == "cache"):
            raise ValueError(f"{self.key}: source {self.source!r} with is_cached={self.is_cached}")
        if self.retrieved_at.utcoffset() != _NO_OFFSET:
            raise ValueError(f"{self.key}: retrieved_at is not in UTC")

    @property
    def may_cause_change(self) -> bool:
        return not (self.is_stale or self.is_fallback)
