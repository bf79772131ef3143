"""Which paths and indexes are refused, and what a tree's digest depends on."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.blocks import (
    MAX_BLOCK,
    MAX_BLOCKS,
    MIN_BLOCK,
    block_count,
    block_length,
    block_size_for,
)
from agent.errors import PathRefused, RemoteProtocolError
from agent.index import (
    BATCH_BYTES,
    STAGING,
    check_path,
    directory_entry,
    file_entry,
    find_collision,
    split_batches,
    symlink_entry,
    tree_digest,
)
from agent.index_check import IndexCheck
from agent.wire.messages import Entry

MIB = 1024 * 1024


def a_file(path: str, content: bytes = b"x", *, mode: int = 0o644, mtime_ns: int = 5) -> Entry:
    blocks = hashlib.sha256(content).digest() if content else b""
    return file_entry(path, mode=mode, size=len(content), mtime_ns=mtime_ns, blocks=blocks)


def a_folder(path: str, mode: int = 0o755) -> Entry:
    return directory_entry(path, mode=mode, mtime_ns=7)


def a_link(path: str, link: str = "elsewhere") -> Entry:
    return symlink_entry(path, mtime_ns=9, link=link)


def check(*entries: Entry, announced: int | None = None, reserved: tuple[str, ...] = ()) -> tuple[Entry, ...]:
    checker = IndexCheck(
        entries=len(entries) if announced is None else announced,
        total_bytes=sum(entry.size for entry in entries),
        max_entries=1000,
        max_file_size=100 * MIB,
        max_total_size=200 * MIB,
        reserved=reserved,
    )
    checker.add(entries)
    return checker.finish(tree_digest(entries, ignore_permissions=False), ignore_permissions=False)


@pytest.mark.parametrize(
    ("size", "block_size", "count"),
    [
        (0, MIN_BLOCK, 0),
        (1, MIN_BLOCK, 1),
        (MIN_BLOCK, MIN_BLOCK, 1),
        (MIN_BLOCK + 1, MIN_BLOCK, 2),
        (MIN_BLOCK * MAX_BLOCKS, MIN_BLOCK, 256),
        (MIN_BLOCK * MAX_BLOCKS + 1, 2 * MIN_BLOCK, 129),
        (1024 * MIB, MAX_BLOCK, 256),
        (1024 * MIB + 1, MAX_BLOCK, 257),
        (64 * 1024 * MIB, MAX_BLOCK, 16384),
    ],
)
def test_block_sizes(size: int, block_size: int, count: int) -> None:
    assert block_size_for(size) == block_size
    assert block_count(size) == count


@given(st.integers(min_value=0, max_value=8 * 1024 * MIB))
def test_blocks_cover_a_file_exactly(size: int) -> None:
    count = block_count(size)
    assert count <= MAX_BLOCKS or block_size_for(size) == MAX_BLOCK
    assert (
        sum(block_length(size, number) for number in {count - 1} if count)
        + block_size_for(size) * max(count - 1, 0)
        == size
    )


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "a//b",
        "a/",
        "./a",
        "a/./b",
        "..",
        "../a",
        "a/../../b",
        "a\0b",
        "n" * 256,
        "ü" * 128,
        "/".join(["d" * 200] * 21),
        "caf\udce9",
        STAGING,
        f"{STAGING}/1",
        f"a/{STAGING}",
        "a.trueup-backup-20250101T000000Z",
    ],
)
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(PathRefused):
        check_path(path)


@pytest.mark.parametrize(
    "path", ["a", "a/b", "...", "..a", "a b", "ü/ß", "n" * 255, ".env", ".trueup", "a\nb", "-rf", "~", "a\\b"]
)
def test_paths_that_are_taken(path: str) -> None:
    check_path(path)


@given(st.text(min_size=1, max_size=40))
def test_no_accepted_path_leads_out(path: str) -> None:
    try:
        check_path(path)
    except PathRefused:
        return
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/"))
    assert "\0" not in path


def test_a_good_index_is_taken() -> None:
    entries = (a_folder("a"), a_file("a/b"), a_link("a/c"), a_file("d", b""))
    assert check(*entries) == entries


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ((a_file("b"), a_file("a")), "not in order"),
        ((a_file("a"), a_file("a")), "twice"),
        ((a_file("../a"),), "canonical"),
        ((a_file("a"), a_file("a/b")), "below something"),
        ((a_link("a", "/etc"), a_file("a/passwd")), "below something"),
        ((a_file("a/b"),), "below something"),
        ((a_file("A"), a_file("a")), "differ only"),
        ((a_file("cafe\u0301"), a_file("caf\u00e9")), "differ only"),
        ((a_file("a", mode=0o644), msgspec.structs.replace(a_file("b"), mode=0o4755)), "permission bits"),
        ((msgspec.structs.replace(a_file("a"), size=-1),), "bytes"),
        ((msgspec.structs.replace(a_file("a"), size=MIN_BLOCK + 1),), "digests"),
        ((msgspec.structs.replace(a_file("a"), block_size=0),), "wrong size"),
        ((msgspec.structs.replace(a_file("a"), block_size=1),), "wrong size"),
        ((msgspec.structs.replace(a_file("a"), blocks=b""),), "digests"),
        ((msgspec.structs.replace(a_file("a"), blocks=b"x" * 33),), "digests"),
        ((msgspec.structs.replace(a_file("a"), mtime_ns=-1),), "time"),
        ((msgspec.structs.replace(a_file("a"), mtime_ns=2**63),), "time"),
        ((msgspec.structs.replace(a_folder("a"), blocks=b"x" * 32),), "no file"),
        ((a_link("a", ""),), "link"),
        ((a_link("a", "x\0y"),), "link"),
        ((a_link("a", "x" * 5000),), "link"),
        ((msgspec.structs.replace(a_file("a"), link="b"),), "link"),
        ((a_file(".env"),), "rendered"),
        ((a_file("conf"),), "rendered"),
    ],
)
def test_indexes_that_are_refused(entries: tuple[Entry, ...], said: str) -> None:
    with pytest.raises((PathRefused, RemoteProtocolError), match=said):
        check(*entries, reserved=(".env", "conf/app.toml"))


def test_a_directory_may_hold_a_rendered_file() -> None:
    assert check(a_folder("conf"), reserved=("conf/app.toml",))


def test_more_and_fewer_entries_than_announced() -> None:
    with pytest.raises(RemoteProtocolError, match="more entries"):
        check(a_file("a"), a_file("b"), announced=1)
    with pytest.raises(RemoteProtocolError, match="less"):
        check(a_file("a"), announced=2)


def test_bounds_are_the_hosts_own() -> None:
    def start(entries: int = 1, total: int = 1) -> IndexCheck:
        return IndexCheck(
            entries=entries, total_bytes=total, max_entries=10, max_file_size=100, max_total_size=1000
        )

    for entries, total in ((11, 1), (-1, 1), (1, 1001), (1, -1)):
        with pytest.raises(RemoteProtocolError):
            start(entries, total)
    with pytest.raises(RemoteProtocolError, match="max_file_size"):
        start(1, 1000).add([a_file("a", b"x" * 101)])
    with pytest.raises(RemoteProtocolError, match="more bytes"):
        start(2, 3).add([a_file("a", b"xx"), a_file("b", b"xx")])


def test_long_names_do_not_add_up_to_all_memory() -> None:
    many = 20_000
    checker = IndexCheck(
        entries=many, total_bytes=0, max_entries=many, max_file_size=1, max_total_size=1, reserved=()
    )
    with pytest.raises(RemoteProtocolError, match="too long"):
        checker.add(a_link(f"{number:06}", "x" * 4000) for number in range(many))
    few = IndexCheck(entries=100, total_bytes=0, max_entries=many, max_file_size=1, max_total_size=1)
    few.add(a_link(f"{number:06}", "x" * 4000) for number in range(100))


def test_an_index_of_another_tree_is_refused() -> None:
    checker = IndexCheck(entries=1, total_bytes=1, max_entries=1, max_file_size=1, max_total_size=1)
    checker.add([a_file("a")])
    with pytest.raises(RemoteProtocolError, match="tree that the task names"):
        checker.finish(b"\0" * 32, ignore_permissions=False)


def test_the_digest_of_a_known_tree() -> None:
    """The encoding is a contract between versions: written out here byte by byte, it may never change."""
    entries = [a_folder("a"), a_file("a/b", b"hello"), a_link("c", "a/b"), a_file("é", b"", mode=0o755)]
    digest = hashlib.sha256(b"hello").digest()
    encoded = (
        b"\x94"
        b"\x96\xa1a\xa1d\xcd\x01\xed\x00\xc4\x00\xa0"
        b"\x96\xa3a/b\xa1f\xcd\x01\xa4\x05\xc4\x20" + digest + b"\xa0"
        b"\x96\xa1c\xa1s\xff\x00\xc4\x00\xa3a/b"
        b"\x96\xa2\xc3\xa9\xa1f\xcd\x01\xed\x00\xc4\x00\xa0"
    )
    expected = hashlib.sha256(b"trueup-tree-1\n" + encoded).digest()
    assert tree_digest(entries, ignore_permissions=False) == expected
    assert tree_digest(reversed(entries), ignore_permissions=False) == expected


@pytest.mark.parametrize(
    "other",
    [
        a_file("b", b"hello"),
        a_file("a", b"hellO"),
        a_file("a", b"hello", mode=0o755),
        a_folder("a"),
        a_link("a"),
    ],
)
def test_what_the_digest_tells_apart(other: Entry) -> None:
    entry = a_file("a", b"hello")
    assert tree_digest([entry], ignore_permissions=False) != tree_digest([other], ignore_permissions=False)


def test_what_the_digest_does_not_see() -> None:
    one, other = a_file("a", mtime_ns=1), a_file("a", mtime_ns=2)
    assert tree_digest([one], ignore_permissions=False) == tree_digest([other], ignore_permissions=False)
    wide = a_file("a", mode=0o777)
    assert tree_digest([one], ignore_permissions=True) == tree_digest([wide], ignore_permissions=True)


def test_names_that_are_not_utf8_have_a_digest_of_their_own() -> None:
    odd = msgspec.structs.replace(a_file("a"), path="caf\udce9")
    plain = msgspec.structs.replace(a_file("a"), path="caf")
    assert tree_digest([odd], ignore_permissions=True) != tree_digest([plain], ignore_permissions=True)


def test_batches_fit_a_control_frame_and_keep_the_order() -> None:
    entries = [a_file(f"{number:06}-{'ü' * 100}") for number in range(6000)]
    largest = msgspec.structs.replace(a_file("z"), size=64 * 1024 * MIB, blocks=b"x" * (16384 * 32))
    batches = split_batches([*entries, largest])
    assert [entry for batch in batches for entry in batch] == [*entries, largest]
    assert len(batches) > 2
    assert all(len(msgspec.msgpack.encode(batch)) <= BATCH_BYTES + 1000 for batch in batches)


def test_collisions() -> None:
    assert find_collision(["a", "b", "a/B"]) is None
    assert find_collision(["a/x", "a/X"]) == ("a/x", "a/X")
    assert find_collision(["Straße", "STRASSE"]) == ("Straße", "STRASSE")
