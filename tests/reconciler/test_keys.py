"""The master key: what is derived from it never changes, and nothing gives it away."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import SettingsError
from reconciler.keys import PREFIX, MasterKey, read_key_file, write_key_file

ROOT = Path(__file__).parents[2]
VECTOR = "trueup-master-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def test_derivation_never_changes() -> None:
    """Other values here mean that every agent and every status branch in the field is cut off."""
    key = MasterKey.from_text(VECTOR)
    assert key.key_id == "066d4dcb"
    assert key.hash_key.hex() == "8cb27e238f19fd2400e536de0c68abd9465e655898b8e3289e8ba62eccc83c00"
    assert key.tls_fingerprint == "77287113093ae4675ba31dd02ef5687bc40a3d489b4f6d6141b01c79ed923f0a"
    assert key.signing_fingerprint == "c0beb068a42d2f0fc64874fb8ff3215a3d47d8ac9180ee154dbca24071fe1ed2"
    assert key.signing_public_text == "ed25519:A/GrG7ZKNM83PlK0FY8QLnQ+vpJVbmFOBxY+Zl7qOeY="
    assert (
        key.signing_key.sign(b"trueup").hex() == MasterKey.from_text(VECTOR).signing_key.sign(b"trueup").hex()
    )


@given(st.binary(min_size=32, max_size=32))
def test_text_and_key_are_the_same_thing(seed: bytes) -> None:
    key = MasterKey(seed)
    again = MasterKey.from_text(f"\n {key.to_text()}\n")
    assert again == key
    assert (again.key_id, again.hash_key, again.tls_fingerprint) == (
        key.key_id,
        key.hash_key,
        key.tls_fingerprint,
    )


def test_keys_of_different_purposes_and_masters_differ() -> None:
    one, other = MasterKey.generate(), MasterKey.generate()
    made = [
        form
        for key in (one, other)
        for form in (
            key.hash_key,
            key.tls_key.private_bytes_raw(),
            key.signing_key.private_bytes_raw(),
            MasterKey.to_text(key).encode(),
        )
    ]
    assert len(set(made)) == len(made)
    assert one != other
    assert one.key_id != other.key_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "hunter2-hunter2",
        VECTOR.removeprefix(PREFIX),
        VECTOR[:-1],
        VECTOR[:-4],
        VECTOR.replace("A", "ä", 1),
        PREFIX + "QUJD",
        PREFIX + "!" * 44,
        VECTOR.replace("master-1", "master-2"),
        PREFIX + "\ud800",
    ],
)
def test_a_damaged_text_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        MasterKey.from_text(text, where="TRUEUP_MASTER_KEY")
    said = f"{caught.value} {caught.value.__cause__} {caught.value.args}"
    assert "TRUEUP_MASTER_KEY" in said
    assert "trueup key new" in said
    secret = text.strip().removeprefix(PREFIX)
    assert not secret or secret not in said


def test_nothing_gives_the_key_away(tmp_path: Path) -> None:
    key = MasterKey.from_text(VECTOR)
    secret = VECTOR.removeprefix(PREFIX)
    for shown in (repr(key), str(key), f"{key}", repr([key])):
        assert shown in ("MasterKey(key_id='066d4dcb')", "[MasterKey(key_id='066d4dcb')]")
        assert secret not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            leak(key)


@pytest.mark.parametrize("umask", ["0o000", "0o022", "0o077", "0o777"])
def test_the_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path, umask: str) -> None:
    path = tmp_path / "master.key"
    code = (
        "import os, sys; from pathlib import Path; from reconciler.keys import MasterKey, write_key_file;"
        "os.umask(int(sys.argv[2], 8)); write_key_file(Path(sys.argv[1]), MasterKey(bytes(range(32))))"
    )
    subprocess.run([sys.executable, "-c", code, str(path), umask], check=True, timeout=60, cwd=ROOT)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert read_key_file(path) == MasterKey.from_text(VECTOR)


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    write_key_file(path, MasterKey.from_text(VECTOR))
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="will not be overwritten"):
        write_key_file(path, MasterKey.generate())
    assert path.read_bytes() == before
    elsewhere = tmp_path / "elsewhere"
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    with pytest.raises(SettingsError):
        write_key_file(link, MasterKey.generate())
    assert not elsewhere.exists()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no master key at .*gone"):
        read_key_file(tmp_path / "gone")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_key_file(tmp_path)
    with pytest.raises(SettingsError, match="cannot be written"):
        write_key_file(tmp_path / "no" / "directory", MasterKey.generate())
    large = tmp_path / "large"
    large.write_bytes(b"x" * 10_000)
    with pytest.raises(SettingsError, match="too large"):
        read_key_file(large)
    binary = tmp_path / "binary"
    binary.write_bytes(os.urandom(64).replace(b"t", b"T"))
    with pytest.raises(SettingsError, match="binary does not hold"):
        read_key_file(binary)
