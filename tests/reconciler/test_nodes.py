"""`trueup node …` against a real spec repository: what is committed, and what is refused before it is."""

import shlex
from pathlib import Path

import pytest

from agent.node_token import NodeToken, parse_token_key
from reconciler.errors import GitRefused, GitUnavailable, SettingsError, SpecInvalid
from reconciler.nodes import add_node, list_nodes, repair_node, rotate_token
from reconciler.settings import Settings
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.spec_edit import EditRefused
from tests.gitrepo import GitRepo, Link
from tests.operators import settings_here

SPEC = "version: 1   # mine\nnodes:\n  old: {token_key: '%s'}   # the first\n"


@pytest.fixture
def remote(tmp_path: Path) -> GitRepo:
    return GitRepo.create(tmp_path / "spec.git")


@pytest.fixture
def settings(tmp_path: Path, remote: GitRepo, monkeypatch: pytest.MonkeyPatch) -> Settings:
    remote.commit({SPEC_FILE: SPEC % NodeToken.generate().public_text})
    return settings_here(tmp_path, remote, monkeypatch)


async def add(settings: Settings, name: str, *labels: str, dry_run: bool = False) -> list[str]:
    return await add_node(settings, name, labels=labels, primaries=["p.example:9001"], dry_run=dry_run)


def token_of(lines: list[str]) -> NodeToken:
    """The token in the join command."""
    [join] = [shlex.split(line) for line in lines if "trueup-agent join" in line]
    return NodeToken.from_text(join[join.index("--token") + 1])


async def test_a_node_is_one_commit_of_its_public_half(settings: Settings, remote: GitRepo) -> None:
    lines = await add(settings, "web-1", "group=web")
    text = remote.read(SPEC_FILE).decode()
    assert "# mine" in text
    assert "# the first" in text
    node = load_or_raise({SPEC_FILE: text.encode()}).nodes["web-1"]
    assert node.labels == {"group": "web"}
    token = token_of(lines)
    assert node.token_key == token.public_text
    assert token.to_text() not in text
    assert len(remote.log()) == 2
    parse_token_key(node.token_key).verify(token.sign(b"statement"), b"statement")


async def test_an_address_that_is_none_is_refused_before_the_commit(
    settings: Settings, remote: GitRepo
) -> None:
    for call in (
        add_node(settings, "web-1", labels=[], primaries=["localhost"], dry_run=False),
        rotate_token(settings, "old", primaries=["p.example:9001", "p.example:http"]),
    ):
        with pytest.raises(SettingsError, match="is not HOST:PORT"):
            await call
    assert len(remote.log()) == 1


async def test_a_dry_run_commits_nothing(settings: Settings, remote: GitRepo) -> None:
    lines = await add(settings, "web-1", dry_run=True)
    assert any("token_key" in line for line in lines)
    assert len(remote.log()) == 1


@pytest.mark.parametrize(
    ("name", "labels", "said"),
    [
        ("old", (), "has a node old already"),
        ("no spaces", (), "cannot be added"),
        ("web-1", ("nonsense",), "give KEY=VALUE"),
    ],
)
async def test_what_cannot_be_added(
    settings: Settings, remote: GitRepo, name: str, labels: tuple[str, ...], said: str
) -> None:
    with pytest.raises((SettingsError, EditRefused), match=said):
        await add(settings, name, *labels)
    assert len(remote.log()) == 1


async def test_a_spec_that_is_json_is_changed_too(settings: Settings, remote: GitRepo) -> None:
    remote.commit({SPEC_FILE: '{"version": 1, "nodes": {}}\n'})
    token = token_of(await add(settings, "web-1"))
    assert (
        remote.read(SPEC_FILE).decode()
        == f'{{"version": 1, "nodes": {{web-1: {{token_key: "{token.public_text}"}}}}}}\n'
    )


async def test_a_node_goes_where_the_others_are(settings: Settings, remote: GitRepo) -> None:
    """Into the file that has nodes, whose own lines stay."""
    other = SPEC.partition("\n")[2] % NodeToken.generate().public_text
    remote.commit({SPEC_FILE: "version: 1\ninclude: [hosts/*.yaml]\n", "hosts/all.yaml": other})
    await add(settings, "web-1")
    text = remote.read("hosts/all.yaml").decode()
    assert text.startswith(other)
    assert remote.read(SPEC_FILE) == b"version: 1\ninclude: [hosts/*.yaml]\n"
    second = token_of(await rotate_token(settings, "web-1", primaries=["p.example:9001"]))
    spec = load_or_raise({path: remote.read(path) for path in (SPEC_FILE, "hosts/all.yaml")})
    assert spec.nodes["web-1"].token_key == second.public_text


async def test_a_spec_that_cannot_be_read_is_left_alone(settings: Settings, remote: GitRepo) -> None:
    remote.commit({SPEC_FILE: "version: 1\nnodes: 5\n"})
    with pytest.raises(SpecInvalid):
        await add(settings, "web-1")
    assert remote.read(SPEC_FILE).decode() == "version: 1\nnodes: 5\n"


async def test_a_link_in_place_of_the_spec_is_not_written_through(
    settings: Settings, remote: GitRepo, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text("version: 1\n")
    remote.commit({SPEC_FILE: Link(str(outside))})
    with pytest.raises(SettingsError, match=r"has no trueup\.yaml"):
        await add(settings, "web-1")
    assert outside.read_text() == "version: 1\n"


async def test_a_protected_branch_and_a_repository_that_is_away(settings: Settings, remote: GitRepo) -> None:
    hook = remote.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho protected >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(GitRefused, match="use --dry-run"):
        await add(settings, "web-1")
    remote.path.rename(remote.path.with_name("away.git"))
    with pytest.raises(GitUnavailable, match="could not be cloned"):
        await add(settings, "web-1")


async def test_a_new_token_is_told_before_any_pass_has_seen_the_node(
    settings: Settings, remote: GitRepo
) -> None:
    first = token_of(await add(settings, "web-1"))
    second = token_of(await rotate_token(settings, "web-1", primaries=["p.example:9001"]))
    assert second.public_text != first.public_text
    spec = load_or_raise({SPEC_FILE: remote.read(SPEC_FILE)})
    assert spec.nodes["web-1"].token_key == second.public_text
    with pytest.raises(SettingsError, match="has never paired"):
        await repair_node(settings, "web-1")


async def test_nodes_are_listed(
    settings: Settings, capsys: pytest.CaptureFixture[str], remote: GitRepo
) -> None:
    await add(settings, "web-1", "group=web")
    await list_nodes(settings, "table")
    out = capsys.readouterr().out
    assert "web-1" in out
    assert "group=web" in out
