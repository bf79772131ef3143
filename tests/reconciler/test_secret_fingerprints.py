"""Fingerprints of what sources answered: bound to source and key, comparable, and nothing of the value."""

from reconciler.secret_fingerprints import changed_keys, source_fingerprints
from reconciler.secrets.values import Secret

KEY = b"k" * 32
ONE, TWO = {"A": Secret("same"), "B": Secret("same")}, {"A": Secret("other")}


def test_equal_values_do_not_show_as_equal() -> None:
    found = source_fingerprints({"x": [ONE], "y": [ONE]}, KEY)
    assert len({*found["x"].values(), *found["y"].values()}) == 4
    assert source_fingerprints({"x": [ONE]}, KEY) == {"x": found["x"]}
    assert source_fingerprints({"x": [ONE]}, b"l" * 32)["x"] != found["x"]


def test_a_source_without_an_answer_is_left_out() -> None:
    assert source_fingerprints({"x": []}, KEY) == {}


def test_each_of_several_answers_counts() -> None:
    one, both = source_fingerprints({"x": [ONE]}, KEY), source_fingerprints({"x": [ONE, TWO]}, KEY)
    assert one["x"]["A"] != both["x"]["A"]
    assert one["x"]["B"] == both["x"]["B"]
    assert source_fingerprints({"x": [TWO, ONE]}, KEY) == both


def test_changes_are_told_by_key() -> None:
    old, new = {"A": "1", "B": "2", "C": "3"}, {"B": "2", "C": "4", "D": "5"}
    assert changed_keys(old, new) == {"appeared": ["D"], "changed": ["C"], "vanished": ["A"]}
