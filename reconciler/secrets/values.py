"""Secret values: a type that shows `***` wherever it is printed, and where a value came from."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

MASK = "***"


class Secret:
    """A text that no `repr`, `str`, `format`, pickle or copy gives away; `reveal` is the only way out."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The text itself: for a child's environment, a rendered file or a fingerprint, nothing else."""
        return self.__value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.__value == other.__value

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class SecretValue:
    """One secret with its provenance.

    `source` is the kind that delivered it: `infisical`, `cache`, `env_file`, `environ`, ...
    `origin` is the name of the source in the spec. `is_cached` is never true of a fresh value. `is_stale` and
    `is_fallback` mark a value that may serve, but that must not cause a deploy by itself.
    """

    key: str
    value: Secret
    environment: str
    source: str
    origin: str
    is_cached: bool
    retrieved_at: datetime
    is_stale: bool = False
    is_fallback: bool = False

    @property
    def may_cause_change(self) -> bool:
        return not (self.is_stale or self.is_fallback)
