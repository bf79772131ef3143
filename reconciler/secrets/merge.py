"""One environment out of `env`, secrets and the primary's own variables: who wins is decided here, purely."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from reconciler.errors import SecretMissing
from reconciler.secrets.errors import VariableUnusable
from reconciler.secrets.values import Plain, Secret, SecretValue
from reconciler.spec.model import DEFAULT_PRECEDENCE, Precedence, SecretUse

KEY = re.compile(r"[A-Z][A-Z0-9_]*")
"""What a secret's key looks like where it becomes a variable's name unchanged."""

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Names that every shell and process accepts (POSIX, with lower case)."""

_UNCARRIABLE = re.compile("[\0\ud800-\udfff]")
"""NUL, and halves of characters, which have no UTF-8 form."""

MAX_NEAR_NAMES = 3


@dataclass(frozen=True, slots=True)
class Collision:
    """One variable that several places give. Places read `env`, `environ` or `secrets/<source>`."""

    name: str
    winner: str
    losers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.winner} wins over {', '.join(self.losers)}"


@dataclass(frozen=True, slots=True)
class Merged:
    """The variables by name, in order of names; `collisions` in the same order. Its repr shows names only."""

    variables: Mapping[str, str | SecretValue] = field(repr=False)
    collisions: tuple[Collision, ...]

    def __repr__(self) -> str:
        return f"Merged(names={tuple(self.variables)!r}, collisions={self.collisions!r})"

    def plain(self) -> Plain:
        """Names and values in the clear, for a rendered file and nothing else."""
        return Plain(
            (name, value.value.reveal() if isinstance(value, SecretValue) else value)
            for name, value in self.variables.items()
        )

    def sealed(self) -> dict[str, Secret]:
        """For a child's environment: each value, also one that is no secret, until the child gets it."""
        return {
            name: value.value if isinstance(value, SecretValue) else Secret(value)
            for name, value in self.variables.items()
        }

    def secrets(self) -> tuple[Secret, ...]:
        """The secret values, for a masker."""
        return tuple(value.value for value in self.variables.values() if isinstance(value, SecretValue))


@dataclass(slots=True)
class _Candidate:
    """A value on its way to a variable; `identity` tells whether two candidates are one and the same.

    Not frozen: a pass makes tens of thousands, and a frozen one takes three times as long to make.
    """

    place: str
    identity: str
    value: str | SecretValue = field(repr=False)


def merge(
    *,
    env: Mapping[str, str],
    secrets: Sequence[tuple[SecretUse, Mapping[str, SecretValue]]],
    environ: Mapping[str, str],
    precedence: Sequence[Precedence] = DEFAULT_PRECEDENCE,
) -> Merged:
    """Everything that a service or a rendered file gets, each name once.

    `precedence` is strongest first; a place that it leaves out is weaker than all it names. Among
    `secrets` the last one wins. A renamed key has exactly the name it was given, all others get the
    prefix. `environ` holds only what may pass. Raises SecretMissing for a key that a source does not
    have and VariableUnusable for a name or a value that cannot be a variable.
    """
    strongest_last = _ranked(
        {
            Precedence.ENV: [(name, _Candidate("env", name, value)) for name, value in env.items()],
            Precedence.SECRETS: [pair for use, values in secrets for pair in _from_source(use, values)],
            Precedence.ENVIRON: [
                (name, _Candidate("environ", name, value)) for name, value in environ.items()
            ],
        },
        precedence,
    )
    for name, candidates in strongest_last.items():
        _check_name(name, candidates[0])
        for candidate in candidates:
            _check_value(name, candidate)
    names = sorted(strongest_last)
    return Merged({name: strongest_last[name][-1].value for name in names}, _collisions(strongest_last))


def declared_collisions(
    *,
    env: Iterable[str],
    secrets: Iterable[SecretUse],
    environ: Iterable[str],
    precedence: Sequence[Precedence] = DEFAULT_PRECEDENCE,
) -> tuple[Collision, ...]:
    """The collisions that can be told from the spec alone: of names that it writes out."""
    listed = [(use, [*use.keys, *use.rename]) for use in secrets]
    return _collisions(
        _ranked(
            {
                Precedence.ENV: [(name, _Candidate("env", name, "")) for name in env],
                Precedence.SECRETS: [
                    (_name(use, key), _Candidate(f"secrets/{use.source}", key, ""))
                    for use, keys in listed
                    for key in dict.fromkeys(keys)
                ],
                Precedence.ENVIRON: [(name, _Candidate("environ", name, "")) for name in environ],
            },
            precedence,
        )
    )


def _ranked(
    offered: Mapping[Precedence, Iterable[tuple[str, _Candidate]]], precedence: Sequence[Precedence]
) -> dict[str, list[_Candidate]]:
    """The candidates of each variable, the weakest first."""
    order = [*precedence, *(kind for kind in DEFAULT_PRECEDENCE if kind not in precedence)]
    strongest_last: dict[str, list[_Candidate]] = {}
    for kind in reversed(order):
        for name, candidate in offered[kind]:
            strongest_last.setdefault(name, []).append(candidate)
    return strongest_last


def _collisions(strongest_last: Mapping[str, Sequence[_Candidate]]) -> tuple[Collision, ...]:
    collisions: list[Collision] = []
    # Nearly all names come from one place.
    for name in sorted(name for name, candidates in strongest_last.items() if len(candidates) > 1):
        *others, winner = strongest_last[name]
        losers = [
            other.place
            for other in reversed(others)
            if (other.place, other.identity) != (winner.place, winner.identity)
        ]
        if losers:
            collisions.append(Collision(name, winner.place, tuple(dict.fromkeys(losers))))
    return tuple(collisions)


def _from_source(use: SecretUse, values: Mapping[str, SecretValue]) -> Iterator[tuple[str, _Candidate]]:
    """What one entry of a `secrets:` list asks for, under the names it gets."""
    wanted = [*use.keys, *(key for key in use.rename if key not in use.keys)]
    if not use.keys:
        wanted = [*wanted, *(key for key in values if key not in use.rename)]
    place, rename, prefix = f"secrets/{use.source}", use.rename, use.prefix
    for key in wanted:
        value = values.get(key)
        if value is None:
            raise SecretMissing(_missing(use.source, key, values), hint=_near(key, values))
        if key in rename:
            yield rename[key], _Candidate(place, key, value)
            continue
        if not _matches(KEY, key):
            raise VariableUnusable(
                f"secret source {use.source}: the key {key!r} is not of the form {KEY.pattern}",
                hint="give it a name under `rename`, or list the wanted ones under `keys`",
            )
        yield prefix + key, _Candidate(place, key, value)


def _name(use: SecretUse, key: str) -> str:
    return use.rename[key] if key in use.rename else use.prefix + key


def _missing(source: str, key: str, values: Mapping[str, SecretValue]) -> str:
    served_by = {value.origin for value in values.values()} - {source}
    through = f" (served by its fallback {', '.join(sorted(served_by))})" if served_by else ""
    return f"secret source {source}{through} has no key {key!r}"


def _near(key: str, values: Mapping[str, SecretValue]) -> str:
    upper = {name.upper(): name for name in values}
    near = [upper[name] for name in difflib.get_close_matches(key.upper(), upper, MAX_NEAR_NAMES)]
    if near:
        return f"near names there: {', '.join(near)}"
    return f"it has {len(values)} other key{'' if len(values) == 1 else 's'}; add this one, or mend the name"


@lru_cache(maxsize=4096)
def _matches(pattern: re.Pattern[str], name: str) -> bool:
    """Remembered: a pass sees the same names in each of a thousand services."""
    return pattern.fullmatch(name) is not None


def _check_name(name: str, candidate: _Candidate) -> None:
    if not _matches(VARIABLE, name):
        raise VariableUnusable(
            f"{candidate.place}: {name!r} cannot be the name of a variable",
            hint=f"use letters, digits and _ ({VARIABLE.pattern})",
        )


def _check_value(name: str, candidate: _Candidate) -> None:
    value = candidate.value
    if not _carriable(value.value.reveal() if isinstance(value, SecretValue) else value):
        raise VariableUnusable(
            f"{candidate.place}: the value of {name} holds a NUL character or is not valid text",
            hint="store binary data in base64",
        )


def _carriable(text: str) -> bool:
    if text.isascii():  # by far the most, and quickly told
        return "\0" not in text
    # An encode that fails would raise with the whole value inside the exception: look first.
    return _UNCARRIABLE.search(text) is None
