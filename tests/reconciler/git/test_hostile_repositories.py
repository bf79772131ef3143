"""Threats 3, 4 and 5: nothing that a repository or an account brings along is run or placed unseen."""

from pathlib import Path

import pytest

from reconciler.errors import GitRefused
from reconciler.git.checkout import checkout
from reconciler.git.mirror import Mirror
from tests.gitrepo import GitRepo, Link, Submodule

HOOKS = (
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-update",
    "pre-auto-gc",
    "pre-push",
    "reference-transaction",
    "sendemail-validate",
    "update",
)


def canary_script(path: Path, marker: Path) -> None:
    """A program that leaves a trace when it is run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "$0 $*" >> {marker}\ncat\n')
    path.chmod(0o755)


async def everything(mirror: Mirror, under: Path) -> dict[str, bytes]:
    """Use a mirror in every way; what a work tree of main then held."""
    await mirror.refresh()
    commit = await mirror.commit_of("main")
    tree = await mirror.write_tree(commit, {"new": b"new"})
    new = await mirror.write_commit(tree, [commit], "m")
    assert await mirror.push("refs/heads/pushed", new, expected=None)
    await mirror.refresh()
    async with checkout(mirror, commit, under=under) as path:
        return {
            str(file.relative_to(path)): file.read_bytes()
            for file in sorted(path.rglob("*"))
            if file.is_file() and ".git" not in file.relative_to(path).parts
        }


async def test_no_program_of_the_account_or_the_repository_is_run(
    remote: GitRepo, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, evil, home = tmp_path / "was-run", tmp_path / "evil", tmp_path / "home"
    canary_script(evil / "program", marker)
    for hook in HOOKS:
        canary_script(evil / "hooks" / hook, marker)
        canary_script(evil / "template" / "hooks" / hook, marker)
    home.mkdir()
    config = (
        f"[core]\n\thooksPath = {evil}/hooks\n\tfsmonitor = {evil}/program\n\tsshCommand = {evil}/program\n"
        f"\tpager = {evil}/program\n\tattributesFile = {home}/attributes\n"
        f"[init]\n\ttemplateDir = {evil}/template\n"
        f'[filter "lfs"]\n\tsmudge = {evil}/program\n\tclean = {evil}/program\n\trequired = true\n'
        f'[filter "canary"]\n\tsmudge = {evil}/program\n\tprocess = {evil}/program\n'
        f"[uploadpack]\n\tpackObjectsHook = {evil}/program\n[credential]\n\thelper = {evil}/program\n"
        f"[submodule]\n\trecurse = true\n[gc]\n\tauto = 1\n"
    )
    (home / ".gitconfig").write_text(config)
    (home / "attributes").write_text("* filter=canary\n")
    (home / ".config" / "git").mkdir(parents=True)
    (home / ".config" / "git" / "attributes").write_text("* filter=canary\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(evil / "template"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(evil / "program"))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12\n"
    remote.commit(
        {
            ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n*.txt filter=canary\n",
            ".gitmodules": '[submodule "m"]\n\tpath = m\n\turl = https://127.0.0.1:1/m\n',
            "m": Submodule("1" * 40),
            "large.bin": pointer,
            "a.txt": "plain\n",
        }
    )
    placed = await everything(mirror, tmp_path / "trees")
    assert placed["large.bin"] == pointer
    assert placed["a.txt"] == b"plain\n"
    assert "m" not in placed
    # The same once more with the hooks inside the mirror itself.
    for hook in HOOKS:
        canary_script(mirror.path / "hooks" / hook, marker)
    remote.commit({"b.txt": "more\n"})
    remote.delete("pushed")
    assert (await everything(mirror, tmp_path / "trees"))["b.txt"] == b"more\n"
    assert not marker.exists()


async def test_a_submodule_that_runs_a_command_is_refused_with_the_fetch(
    remote: GitRepo, mirror: Mirror
) -> None:
    url = "-u./payload"
    remote.commit({".gitmodules": f'[submodule "m"]\n\tpath = m\n\turl = {url}\n', "m": Submodule("1" * 40)})
    with pytest.raises(GitRefused, match="git's own check"):
        await mirror.refresh()


@pytest.mark.parametrize("name", [".git", ".GIT", "..", "."])
async def test_a_tree_with_an_escaping_name_is_refused_with_the_fetch(
    name: str, remote: GitRepo, mirror: Mirror
) -> None:
    safe = remote.commit({"a": "1"})
    await mirror.refresh()
    blob = remote.git("hash-object", "-w", "--stdin", stdin=b"#!/bin/sh\n")
    inner = remote.git("mktree", stdin=f"100644 blob {blob}\tconfig\n".encode())
    raw = f"40000 {name}\0".encode() + bytes.fromhex(inner)
    tree = remote.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=raw)
    remote.git("update-ref", "refs/heads/evil", remote.git("commit-tree", tree, "-m", "x"))
    with pytest.raises(GitRefused, match="git's own check"):
        await mirror.refresh()
    assert await mirror.commit_of("main") == safe


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "x\u202etxt.exe", "\x1b[2J", "bad\udcff"])
async def test_a_deceiving_name_is_refused_when_it_would_be_placed(
    name: str, remote: GitRepo, mirror: Mirror, tmp_path: Path
) -> None:
    commit = remote.commit({name: "x", "fine": "y"})
    await mirror.refresh()
    assert await mirror.read_file(commit, "fine", max_size=9) == b"y"
    with pytest.raises(GitRefused) as refused:
        async with checkout(mirror, commit, under=tmp_path / "trees"):
            raise AssertionError("placed")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "trees").exists()


async def test_a_link_is_placed_as_a_link_and_nothing_is_written_through_it(
    remote: GitRepo, mirror: Mirror, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    commit = remote.commit(
        {"link": Link(str(outside)), "d/up": Link("../../.."), "dangling": Link("nowhere")}
    )
    await mirror.refresh()
    async with checkout(mirror, commit, under=tmp_path / "trees") as path:
        assert (path / "link").readlink() == outside
        assert (path / "d" / "up").readlink() == Path("../../..")
        assert (path / "dangling").is_symlink()
    assert outside.is_dir() and list(outside.iterdir()) == []


async def test_a_large_blob_is_refused_by_its_size_and_never_read(
    remote: GitRepo, mirror: Mirror, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(100 * 1024**2)
    oid = remote.git("-c", "core.bigFileThreshold=1m", "hash-object", "-w", str(large))
    large.unlink()
    tree = remote.git(
        "mktree", stdin=b"".join(b"100644 blob %s\tlarge-%d\n" % (oid.encode(), n) for n in range(3))
    )
    commit = remote.git("commit-tree", tree, "-m", "x")
    remote.git("update-ref", "refs/heads/main", commit)
    await mirror.refresh()
    assert [entry.size for entry in await mirror.tree(commit)] == [100 * 1024**2] * 3
    with pytest.raises(GitRefused, match="104857600 bytes"):
        await mirror.read_file(commit, "large-0", max_size=4 * 1024**2)
    with pytest.raises(GitRefused, match="at once"):
        await mirror.read_files(commit, ["large-0", "large-1", "large-2"], max_size=1024**3)
