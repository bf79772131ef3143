"""What stands for a name that is not UTF-8: fit for what it is for, and two names apart where that counts."""

import ast

import msgspec
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from agent.filenames import (
    as_on_disk,
    escaped,
    escaped_apart,
    is_text,
    json_form,
    msgpack_form,
    named,
)

# Parts of characters, whole ones, what looks like an escape, and the bytes of a lone surrogate.
PIECES = (b"a", b"'", b'"', b"\n", b"\xc3", b"\xa9", b"\xff", b"\\xff", b"\xed\xb3\xbf", "é".encode())

on_disk = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=3).map(b"".join),
    st.binary(max_size=20).filter(lambda raw: b"\0" not in raw),
)
names = on_disk.map(lambda raw: raw.decode("utf-8", "surrogateescape"))
halves = st.text(st.sampled_from("aé\udcc3\udca9\udcff\ud800\xc3"), max_size=3)
"""Text that need not come of bytes."""


def is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(on_disk)
def test_a_name_keeps_its_bytes(raw: bytes) -> None:
    name = raw.decode("utf-8", "surrogateescape")
    assert as_on_disk(name) == raw
    assert is_text(name) == is_utf8(raw)


@given(names)
def test_people_can_read_the_bytes_back(name: str) -> None:
    shown = named(name)
    shown.encode()
    assert len(shown.splitlines()) == 1
    if is_text(name):
        assert ast.literal_eval(shown) == name
    else:
        assert ast.literal_eval(f"b{shown}") == as_on_disk(name)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("größe", "'größe'"),
        ("größe\udcff", r"'gr\xc3\xb6\xc3\x9fe\xff'"),
        ("it's\udcff", r'''"it's\xff"'''),
        (b"\xff", r"b'\xff'"),
        (7, "7"),
    ],
)
def test_what_people_are_shown(path: object, shown: str) -> None:
    assert named(path) == shown


def test_a_name_that_is_no_text_is_cut_by_bytes_and_one_that_is_is_not() -> None:
    assert named("é\udcffxyz", 4) == r"'\xc3\xa9\xffx'"
    assert named("éxyz", 1) == "'éxyz'"


@given(names)
def test_what_is_carried_as_text_can_be_written_down(name: str) -> None:
    for text in (escaped(name), escaped_apart(name)):
        assert text.encode().decode() == text
        assert (text == name) == is_text(name)


@example("\udcff", r"\xff")
@given(names, names)
def test_what_is_marked_is_no_files_name(name: str, other: str) -> None:
    if not is_text(name):
        assert escaped_apart(name) not in (other, escaped_apart(other) if is_text(other) else "")
        assert "\0" in escaped_apart(name)


def test_only_what_is_no_character_is_escaped() -> None:
    assert escaped("größe\udcff") == r"größe\xff" == escaped(r"größe\xff")
    assert escaped_apart("größe\udcff") == "\0größe\\xff"


@example("\udcff", r"\xff")
@example("\udcc3\udca9\udcff", "é\udcff")
@given(names | halves, names | halves)
def test_json_that_is_hashed_tells_names_apart(name: str, other: str) -> None:
    one, two = (rfc8785.dumps([json_form(each)]) for each in (name, other))
    assert (one == two) == (name == other)


@example("\udcff", r"\xff")
@given(names, names)
def test_messagepack_that_is_hashed_tells_names_apart(name: str, other: str) -> None:
    one, two = (msgspec.msgpack.encode([msgpack_form(each)]) for each in (name, other))
    assert (one == two) == (name == other)


def test_hashes_that_were_recorded_stay_right() -> None:
    assert json_form("a\udcff") == [0x61, 0xED, 0xB3, 0xBF]
    assert msgpack_form("a\udcff") == b"a\xff"
    assert json_form("größe") == msgpack_form("größe") == "größe"
