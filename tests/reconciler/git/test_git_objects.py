"""The parsers and the tree builder against what real git prints and makes; threat 4 with generated names."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import GitRefused
from reconciler.git.failures import MirrorBroken
from reconciler.git.objects import (
    LEASE_REF,
    MAX_ENTRIES,
    TreeEntry,
    parse_commit,
    parse_ls_remote,
    parse_ls_tree,
    parse_trailers,
)
from reconciler.git.trees import changed_tree, check_tree, pack, path_fault
from tests.gitrepo import Executable, GitRepo, Link, Submodule


def leaf(path: str, size: int = 1, mode: int = 0o100644) -> TreeEntry:
    kind = {0o100000: "file", 0o120000: "symlink", 0o160000: "submodule"}[mode & 0o170000]
    return TreeEntry(path, mode, kind, "0" * 40, size)  # type: ignore[arg-type]


def test_a_plain_tree_is_accepted() -> None:
    check_tree(
        [
            leaf("README.md"),
            leaf("a/b/c"),
            leaf("a/b.c"),
            leaf(".gitignore"),
            leaf(".github/x"),
            leaf("...", 0),
            leaf("größe"),
            leaf("family \U0001f468\u200d\U0001f469"),
            leaf("link", 3, 0o120000),
            leaf("module", 0, 0o160000),
        ]
    )


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../x",
        "a/../b",
        "a/..",
        "/etc/passwd",
        "a//b",
        "a/",
        "",
        ".",
        "./a",
        ".git",
        ".GIT/config",
        "a/.Git/x",
        ".git ",
        ".git.",
        ".g\u200cit/x",
        "a\nb",
        "a\rb",
        "a\x00b",
        "a\x1bb",
        "a\x85b",
        "\u202etxt.exe",
        "a\u2066b",
        "bad\udcff",
        "x" * 256,
        "/".join(["d" * 200] * 30),
        "d/" * 300 + "f",
    ],
)
def test_names_that_leave_or_deceive_are_refused(path: str) -> None:
    with pytest.raises(GitRefused) as refused:
        check_tree([leaf("fine"), leaf(path)])
    assert len(str(refused.value).splitlines()) == 1
    assert "'fine'" not in str(refused.value)


def test_clashes_sizes_and_links_are_refused() -> None:
    for entries in (
        [leaf("a"), leaf("a")],
        [leaf("a", 3, 0o120000), leaf("a/b")],
        [leaf("a/b"), leaf("a/b/c/d")],
        [leaf("a", 0, 0o120000)],
        [leaf("a", 5000, 0o120000)],
        [leaf("a", 10), leaf("b", 2**40)],
    ):
        with pytest.raises(GitRefused):
            check_tree(entries)


@given(
    st.lists(
        st.text(alphabet=st.sampled_from("ab./\\\n\r\x00gitGIT\u202e\u200c\udc80"), max_size=8), max_size=6
    )
)
def test_whatever_is_accepted_stays_below_the_root(paths: list[str]) -> None:
    try:
        check_tree([leaf(path) for path in paths])
    except GitRefused:
        return
    assert len(set(paths)) == len(paths)
    for path in paths:
        parts = path.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert ".git" not in [part.lower() for part in parts]
        assert path.encode() and not set(path) & set("\n\r\x00\u202e")


_NAMES = st.text(alphabet=string.ascii_lowercase + ".-", min_size=1, max_size=3).filter(
    lambda n: not path_fault(n)
)
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(_PATHS, st.one_of(st.none(), st.binary(max_size=40)), max_size=12))
def test_a_changed_tree_reads_back_as_the_changes_say(changes: dict[str, bytes | None]) -> None:
    base = [leaf("zz/kept", 0, 0o100755)]
    try:
        root, objects = changed_tree(base, changes)
    except GitRefused:
        held = {path for path, content in changes.items() if content is not None} | {
            "zz/kept"
        } - changes.keys()
        assert any(one != other and other.startswith(f"{one}/") for one in held for other in held)
        return
    by_id = {new.oid: new for new in objects}

    def read(oid: str, prefix: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        raw = by_id[oid].content
        while raw:
            head, _, rest = raw.partition(b"\0")
            mode, name = head.split(b" ", 1)
            child, raw = rest[:20].hex(), rest[20:]
            path = prefix + name.decode()
            if mode == b"40000":
                found |= read(child, f"{path}/")
            elif child in by_id:
                found[path] = by_id[child].content
        return found

    expected = {path: content for path, content in changes.items() if content is not None}
    assert read(root, "") == expected


def test_a_tree_is_the_one_that_git_makes(remote: GitRepo) -> None:
    files = {f"d{n % 7}/f{n}": f"content {n}\n".encode() for n in range(40)} | {
        "a": b"x",
        "a.b": b"y",
        "a-b/c": b"z" * 100_000,
    }
    commit = remote.commit(files)
    root, objects = changed_tree([], files)
    assert root == remote.resolve(f"{commit}^{{tree}}")
    other = GitRepo.create(remote.path.with_name("other.git"))
    other.git("unpack-objects", "-q", "--strict", stdin=pack(objects))
    assert other.git("ls-tree", "-r", root) == remote.git("ls-tree", "-r", commit)


def test_ls_tree_is_parsed_with_modes_kinds_and_sizes(remote: GitRepo) -> None:
    commit = remote.commit(
        {
            'b\n\t"q': "12345",
            "a/x": Executable("#!"),
            "l": Link("a/x"),
            "s": Submodule("1" * 40),
            "\udcff": "b",
        }
    )
    output = remote.git("ls-tree", "-rz", "-l", commit).encode("utf-8", "surrogateescape")
    assert [(e.path, e.mode, e.kind, e.size) for e in parse_ls_tree(output)] == [
        ("a/x", 0o100755, "file", 2),
        ('b\n\t"q', 0o100644, "file", 5),
        ("l", 0o120000, "symlink", 3),
        ("s", 0o160000, "submodule", 0),
        ("\udcff", 0o100644, "file", 1),
    ]


def test_a_tree_over_the_limit_is_refused_before_it_is_taken_apart() -> None:
    with pytest.raises(GitRefused, match="1000001"):
        parse_ls_tree(b"\0" * (MAX_ENTRIES + 1))


@pytest.mark.parametrize(
    ("body", "trailers"),
    [
        ("", {}),
        ("Only text", {}),
        ("Environment: staging\nUnit: web\n", {"Environment": "staging", "Unit": "web"}),
        ("Text.\n\nEnvironment: staging\n\n\n", {"Environment": "staging"}),
        ("Text: a\n\nmore text", {}),
        ("Spec: abc\n  def\n\tghi", {"Spec": "abc def ghi"}),
        ("A: 1\nA: 2", {"A": "2"}),
        ("A: 1\nnot a trailer", {}),
        ("  leading: fold", {"leading": "fold"}),
        ("URL: https://h/x: y", {"URL": "https://h/x: y"}),
    ],
)
def test_trailers(body: str, trailers: dict[str, str]) -> None:
    assert parse_trailers(body) == trailers


def test_a_commit_with_a_signature_and_odd_bytes() -> None:
    raw = (
        b"tree "
        + b"a" * 40
        + b"\nparent "
        + b"b" * 40
        + b"\nparent "
        + b"c" * 40
        + b"\nauthor A <B> C <a@b> 17 +0200"
        b"\ncommitter D <d@e> 99 -0100\ngpgsig -----BEGIN\n tree fake\n -----END\n\nsubject\xff\n\nbody\n"
    )
    commit = parse_commit("d" * 40, raw)
    assert (commit.tree, commit.parents) == ("a" * 40, ("b" * 40, "c" * 40))
    assert (commit.author, commit.time, commit.message) == ("A <B> C <a@b>", 99, "subject\ufffd\n\nbody\n")
    with pytest.raises(MirrorBroken):
        parse_commit("d" * 40, b"tree x\n\nno author")


def test_ls_remote_keeps_the_mirrored_refs_alone() -> None:
    output = (
        f"{'a' * 40}\tHEAD\n{'a' * 40}\trefs/heads/m\x85n\n{'b' * 40}\trefs/tags/v1\n"
        f"{'c' * 40}\trefs/tags/v1^{{}}\n"
        f"{'d' * 40}\trefs/pull/1/head\n{'e' * 40}\trefs/trueup/lease\n"
    ).encode()
    assert parse_ls_remote(output, "u") == {
        "refs/heads/m\x85n": "a" * 40,
        "refs/tags/v1": "b" * 40,
    }
    assert parse_ls_remote(output, "u", (LEASE_REF,)) == {LEASE_REF: "e" * 40}
    with pytest.raises(GitRefused, match="SHA-256"):
        parse_ls_remote(f"{'a' * 64}\trefs/heads/main\n".encode(), "u")
