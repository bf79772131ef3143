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

_ENV, _SECRETS, _ENVIRON = Precedence.ENV, Precedence.SECRETS, Precedence.ENVIRON


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


Candidate = tuple[str, str]
"""Place and key of what is offered for a variable: two equal ones are one and the same."""


@dataclass(slots=True)
class _Offer:
    """What one place gives: the names of variables, and for each its key there and its value.

    Columns, as a pass makes tens of thousands of entries and an object for each takes longer than all the
    rest. Its repr shows no value.
    """

    place: str
    names: Sequence[str]
    keys: Sequence[str]
    values: Sequence[str | SecretValue] = field(default=(), repr=False)

    def candidates(self) -> Iterator[tuple[str, Candidate]]:
        return ((name, (self.place, key)) for name, key in zip(self.names, self.keys, strict=True))


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
    offered = [(_SECRETS, _from_source(use, values)) for use, values in secrets]
    if env:
        own = tuple(env)
        offered.append((_ENV, _Offer("env", own, own, tuple(env.values()))))
    if environ:
        own = tuple(environ)
        offered.append((_ENVIRON, _Offer("environ", own, own, tuple(environ.values()))))
    offers = _ranked(offered, precedence)
    strongest: dict[str, str | SecretValue] = {}
    for offer in offers:
        strongest.update(zip(offer.names, offer.values, strict=True))
    # Nearly always all names come from one place; then what wins is all that there is.
    if sum(len(offer.names) for offer in offers) == len(strongest):
        if not _are_usable(strongest.items()):
            _refuse(offers)
        collisions: tuple[Collision, ...] = ()
    else:
        _refuse(offers)
        collisions = _collisions(offers)
    return Merged({name: strongest[name] for name in sorted(strongest)}, collisions)


def declared_collisions(
    *,
    env: Iterable[str],
    secrets: Iterable[SecretUse],
    environ: Iterable[str],
    precedence: Sequence[Precedence] = DEFAULT_PRECEDENCE,
) -> tuple[Collision, ...]:
    """The collisions that can be told from the spec alone: of names that it writes out."""
    offered = []
    for use in secrets:
        keys = tuple(dict.fromkeys((*use.keys, *use.rename)))
        names = [_name(use, key) for key in keys]
        offered.append((_SECRETS, _Offer(f"secrets/{use.source}", names, keys)))
    for kind, place, given in ((_ENV, "env", env), (_ENVIRON, "environ", environ)):
        own = tuple(given)
        offered.append((kind, _Offer(place, own, own)))
    return _collisions(_ranked(offered, precedence))


def _ranked(offered: Iterable[tuple[Precedence, _Offer]], precedence: Sequence[Precedence]) -> list[_Offer]:
    """What the places offer, the weakest first; those of one kind as they come."""
    order = [*precedence, *(kind for kind in DEFAULT_PRECEDENCE if kind not in precedence)]
    # `index` and no dict: an enum takes long to hash.
    return [offer for _, offer in sorted(offered, key=lambda pair: -order.index(pair[0]))]


def _collisions(strongest_last: Sequence[_Offer]) -> tuple[Collision, ...]:
    by_name: dict[str, list[Candidate]] = {}
    for offer in strongest_last:
        for name, candidate in offer.candidates():
            by_name.setdefault(name, []).append(candidate)
    collisions: list[Collision] = []
    for name in sorted(name for name, candidates in by_name.items() if len(candidates) > 1):
        *others, winner = by_name[name]
        losers = [place for place, key in reversed(others) if (place, key) != winner]
        if losers:
            collisions.append(Collision(name, winner[0], tuple(dict.fromkeys(losers))))
    return tuple(collisions)


def _from_source(use: SecretUse, values: Mapping[str, SecretValue]) -> _Offer:
    """What one entry of a `secrets:` list asks for, under the names it gets."""
    wanted = [*use.keys, *(key for key in use.rename if key not in use.keys)]
    if not use.keys:
        wanted += (key for key in values if key not in use.rename)
    names, found = [], []
    rename, prefix = use.rename, use.prefix
    for key in wanted:
        value = values.get(key)
        if value is None:
            raise SecretMissing(_missing(use.source, key, values), hint=_near(key, values))
        if key in rename:
            names.append(rename[key])
        elif _is_key(key):
            names.append(prefix + key)
        else:
            raise VariableUnusable(
                f"secret source {use.source}: the key {key!r} is not of the form {KEY.pattern}",
                hint="give it a name under `rename`, or list the wanted ones under `keys`",
            )
        found.append(value)
    return _Offer(f"secrets/{use.source}", names, wanted, found)


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
def _is_key(key: str) -> bool:
    """Remembered, as the next: a pass sees the same names in each of a thousand services."""
    return KEY.fullmatch(key) is not None


@lru_cache(maxsize=4096)
def _is_variable(name: str) -> bool:
    return VARIABLE.fullmatch(name) is not None


def _are_usable(variables: Iterable[tuple[str, str | SecretValue]]) -> bool:
    for name, value in variables:
        if not _is_variable(name):
            return False
        if not _carriable(value.value.reveal() if isinstance(value, SecretValue) else value):
            return False
    return True


def _refuse(offers: Iterable[_Offer]) -> None:
    """Raises for the first name or value that cannot be a variable, also one that does not win."""
    for offer in offers:
        for name, value in zip(offer.names, offer.values, strict=True):
            if not _is_variable(name):
                raise VariableUnusable(
                    f"{offer.place}: {name!r} cannot be the name of a variable",
                    hint=f"use letters, digits and _ ({VARIABLE.pattern})",
                )
            if not _carriable(value.value.reveal() if isinstance(value, SecretValue) else value):
                raise VariableUnusable(
                    f"{offer.place}: the value of {name} holds a NUL character or is not valid text",
                    hint="store binary data in base64",
                )


def _carriable(text: str) -> bool:
    if text.isascii():  # by far the most, and quickly told
        return "\0" not in text
    # An encode that fails would raise with the whole value inside the exception: look first.
    return _UNCARRIABLE.search(text) is None
