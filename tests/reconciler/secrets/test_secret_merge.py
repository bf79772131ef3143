"""Who gives a variable its value, and what is refused."""

from collections.abc import Mapping

import pytest

from reconciler.errors import SecretMissing
from reconciler.secrets.errors import VariableUnusable
from reconciler.secrets.merge import Collision, Merged, declared_collisions, merge
from reconciler.secrets.values import Secret, SecretValue
from reconciler.spec.model import Precedence, SecretUse
from tests.canaries import canary
from tests.reconciler.secrets.sources import NOW

ENV, SECRETS, ENVIRON = Precedence.ENV, Precedence.SECRETS, Precedence.ENVIRON


def values(origin: str = "prod", **plain: str) -> Mapping[str, SecretValue]:
    return {
        key: SecretValue(key, Secret(value), "production", "infisical", False, NOW, origin)
        for key, value in plain.items()
    }


def use(source: str = "prod", *keys: str, prefix: str = "", **rename: str) -> SecretUse:
    return SecretUse(source=source, keys=keys, prefix=prefix, rename=rename)


def merged_secrets(*secrets: tuple[SecretUse, Mapping[str, SecretValue]]) -> Merged:
    return merge(env={}, secrets=secrets, environ={})


def test_all_kinds_come_together_in_order_of_names() -> None:
    merged = merge(env={"C": "c"}, secrets=[(use(), values(B="b"))], environ={"A": "a"})
    assert list(merged.plain().items()) == [("A", "a"), ("B", "b"), ("C", "c")]
    assert merged.collisions == ()
    assert merged.secrets() == (Secret("b"),)


@pytest.mark.parametrize(
    ("precedence", "winner", "losers"),
    [
        ((ENV, SECRETS, ENVIRON), "env", ("secrets/prod", "environ")),
        ((SECRETS, ENVIRON, ENV), "secrets/prod", ("environ", "env")),
        ((ENVIRON, ENV, SECRETS), "environ", ("env", "secrets/prod")),
        ((SECRETS,), "secrets/prod", ("env", "environ")),
        ((), "env", ("secrets/prod", "environ")),
    ],
)
def test_precedence_decides_and_the_collision_is_told(
    precedence: tuple[Precedence, ...], winner: str, losers: tuple[str, ...]
) -> None:
    merged = merge(
        env={"X": "env"},
        secrets=[(use(), values(X="secrets/prod"))],
        environ={"X": "environ"},
        precedence=precedence,
    )
    assert merged.plain() == {"X": winner}
    assert merged.collisions == (Collision("X", winner, losers),)
    assert str(merged.collisions[0]) == f"X: {winner} wins over {', '.join(losers)}"


def test_collisions_that_names_alone_tell() -> None:
    uses = [use("one", "A", "B", prefix="DB_", B="X"), use("two", "X", "X"), use("three")]
    assert declared_collisions(env=["X"], secrets=uses, environ=["DB_A"], precedence=(SECRETS, ENV)) == (
        Collision("DB_A", "secrets/one", ("environ",)),
        Collision("X", "secrets/two", ("secrets/one", "env")),
    )


def test_the_last_source_wins() -> None:
    merged = merged_secrets(
        (use("one"), values("one", A="1", B="1")), (use("two"), values("two", B="2", C="2"))
    )
    assert merged.plain() == {"A": "1", "B": "2", "C": "2"}
    assert merged.collisions == (Collision("B", "secrets/two", ("secrets/one",)),)


def test_one_key_taken_twice_is_no_collision() -> None:
    found = values(A="1", B="2")
    assert merged_secrets((use(), found), (use("prod", "A"), found)).collisions == ()


def test_two_keys_under_one_name_are_a_collision() -> None:
    merged = merged_secrets((use("prod", A="X", B="X"), values(A="1", B="2")))
    assert merged.plain() == {"X": "2"}
    assert merged.collisions == (Collision("X", "secrets/prod", ("secrets/prod",)),)


def test_keys_prefix_and_rename() -> None:
    found = values(A="1", B="2", other="3")
    assert merged_secrets((use("prod", "A"), found)).plain() == {"A": "1"}
    assert merged_secrets((use("prod", "A", "B", prefix="DB_"), found)).plain() == {"DB_A": "1", "DB_B": "2"}
    renamed = merged_secrets((use("prod", prefix="DB_", other="Third", A="FIRST"), found))
    assert renamed.plain() == {"DB_B": "2", "FIRST": "1", "Third": "3"}


def test_a_missing_key_is_named_with_the_names_near_it() -> None:
    found = values(POSTGRES_PASSWORD=canary("merge"), REDIS_URL="x")
    with pytest.raises(SecretMissing) as caught:
        merged_secrets((use("prod", "POSTGRESS_PASSWORD"), found))
    assert str(caught.value) == (
        "secret source prod has no key 'POSTGRESS_PASSWORD'; near names there: POSTGRES_PASSWORD"
    )


def test_a_missing_key_behind_a_fallback_says_who_served() -> None:
    with pytest.raises(SecretMissing, match=r"\(served by its fallback local\) has no key 'A'; it has 1 "):
        merged_secrets((use("prod", "A"), values("local", ZZZ="1")))


@pytest.mark.parametrize("key", ["lower", "1ST", "A-B", "A B", "Ä", ""])
def test_a_key_of_another_form_needs_a_name(key: str) -> None:
    with pytest.raises(VariableUnusable, match="is not of the form"):
        merged_secrets((use(), values(**{key: "1"})))
    named = SecretUse(source="prod", rename={key: "NAME"})
    assert merged_secrets((named, values(**{key: "1"}))).plain() == {"NAME": "1"}


@pytest.mark.parametrize("name", ["1ST", "A-B", "A=B", "", "A\n"])
def test_names_that_no_environment_takes(name: str) -> None:
    with pytest.raises(VariableUnusable, match=r"env: .* cannot be the name of a variable"):
        merge(env={name: "x"}, secrets=[], environ={})
    with pytest.raises(VariableUnusable, match=r"secrets/prod: .* cannot be the name of a variable"):
        merged_secrets((use("prod", A=name), values(A="1")))


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_values_that_no_environment_takes(value: str) -> None:
    with pytest.raises(VariableUnusable, match="secrets/prod: the value of A holds a NUL"):
        merged_secrets((use(), values(A=value)))


def test_printing_shows_names_only() -> None:
    merged = merge(
        env={"A": canary("a")}, secrets=[(use(), values(B=canary("b")))], environ={"C": canary("c")}
    )
    assert repr(merged) == str(merged) == "Merged(names=('A', 'B', 'C'), collisions=())"
