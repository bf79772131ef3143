"""`trueup node …`: hosts in the spec, and what the status files know of them.

This is the operator's side: the commit is made in a clone of their own with GitPython, under their name
and with their credentials.
"""

import getpass
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from agent.node_token import NodeToken
from reconciler import live, spec_edit, unpairing
from reconciler.console import print_document, print_nodes
from reconciler.control.branch import ControlBranch
from reconciler.control.state import fold
from reconciler.errors import GitRefused, GitUnavailable, SettingsError, TrueupError
from reconciler.git.urls import check_url
from reconciler.joining import addresses, join_command
from reconciler.keys import MasterKey
from reconciler.primary import load_key, open_primary, open_repositories, read_status
from reconciler.settings import Settings
from reconciler.spec.files import read_spec_files
from reconciler.spec.load import SPEC_FILE
from reconciler.spec_edit import Edit, NodeFields
from reconciler.spec_source import read_spec
from reconciler.status.documents import NodeStatus

if TYPE_CHECKING:
    import git

CLONE_TIMEOUT = 120
"""Seconds for one git command of a clone or push."""


async def add_node(
    settings: Settings,
    name: str,
    *,
    labels: Sequence[str],
    primaries: Sequence[str],
    dry_run: bool,
) -> list[str]:
    """Make a token, commit its public half to the spec, and return what to tell the operator.

    With `dry_run` the lines for the spec are returned instead of committed, for a protected branch.
    Raises SettingsError for a name or label that cannot be, GitUnavailable or GitRefused if the commit
    could not be pushed; then nothing has changed.
    """
    key = load_key(settings)
    addresses(primaries)  # before anything is committed
    token, fields = NodeToken.generate(), NodeFields(labels=labels_of(labels))
    spec_edit.check_new_node(name, token.public_text, fields)
    if dry_run:
        line = spec_edit.node_line(name, token.public_text, fields)
        lines = ["add this to the spec, under `nodes:`", "", f"  {line}", ""]
    else:
        commit = await commit_spec(settings, spec_edit.add_node(name, token.public_text, fields))
        lines = [f"committed {name} to the spec: {commit[:12]}", await live.ask_for_a_pass(settings), ""]
    return [*lines, *_how_to_join(settings, key, name, token, primaries)]


async def rotate_token(settings: Settings, name: str, *, primaries: Sequence[str]) -> list[str]:
    """Give a node a new token in the spec; the old one ends with the next pass. Returns how to join.

    The agent is refused until it has joined again with the new one. Once the token is committed it is
    returned, whatever fails after that: it stands nowhere else.
    """
    key = load_key(settings)
    addresses(primaries)  # before anything is committed
    token = NodeToken.generate()
    commit = await commit_spec(settings, spec_edit.rotate_token(name, token.public_text))
    lines = [f"committed a new token for {name} to the spec: {commit[:12]}"]
    try:
        await forget_certificate(settings, name)
    except TrueupError as error:
        lines.append(f"its old certificate is still recorded ({error}); run `trueup node repair {name}`")
    return [
        *lines,
        "",
        *_how_to_join(settings, key, name, token, primaries),
    ]


async def repair_node(settings: Settings, name: str) -> list[str]:
    """Forget the certificate that a node paired with, so that its host can join again with its token.

    Raises SettingsError for a node that the status branch does not know.
    """
    async with open_primary(settings, exclusive=False) as primary:
        revoked = await unpairing.is_revoked(primary, name)
        known, commit = await unpairing.forget_certificate(primary, name)
    if not known:
        raise SettingsError(f"{name} has never paired", hint="see `trueup node list`")
    return [unpairing.told(name, commit, revoked=revoked)]


async def forget_certificate(settings: Settings, name: str) -> tuple[bool, str | None]:
    """As `unpairing.forget_certificate`, where no primary is at hand."""
    async with open_primary(settings, exclusive=False) as primary:
        return await unpairing.forget_certificate(primary, name)


async def put_back_pairing(settings: Settings, name: str, status: NodeStatus) -> None:
    """Record again what was recorded of a node before its certificate was forgotten."""
    async with open_primary(settings, exclusive=False) as primary:
        await primary.repositories.refresh(settings.status_repo or settings.require_spec_repo())
        await primary.status.publish(lambda recorded: recorded.put(status), f"Let {name} be paired as before")


def _how_to_join(
    settings: Settings, key: MasterKey, name: str, token: NodeToken, primaries: Sequence[str]
) -> list[str]:
    reached = addresses(primaries) or [f"{this_host()}:{settings.tcp_addr.port}"]
    return how_to_join(join_command(name, token, key.tls_fingerprint, reached))


def how_to_join(join: str) -> list[str]:
    """What an operator does with a join command."""
    return [
        "on the host, with --root for each directory that may be written and --allow for each command:",
        "",
        f"  {join}",
        "",
        "`trueup serve` listens for it once a pass has seen the node, `trueup reconcile` while it runs; with",
        "--wait SECONDS it waits for that. The token is shown only here; it pairs one host, within 24 hours",
    ]


async def list_nodes(settings: Settings, output: str) -> None:
    """Print the nodes of the spec with what the status branch says of their pairing."""
    repositories, url = open_repositories(settings), settings.require_spec_repo()
    await repositories.refresh(url)
    spec = await read_spec(repositories.mirror(url), settings.spec_branch, last_good=None)
    recorded = await read_status(settings, repositories)
    control = fold(await ControlBranch(repositories.mirror(url)).read_after(recorded))
    rows = [
        {
            "node": name,
            "labels": dict(node.labels),
            "paired": bool((status := recorded.nodes.get(f"nodes/{name}")) and status.certificate),
            "fingerprint": status.fingerprint if status else "",
            "trustOnFirstUse": bool(status and status.trust_on_first_use),
            "revoked": control.revocation_of(name, node.token_key) is not None,
        }
        for name, node in sorted(spec.spec.nodes.items())
    ]
    if output == "table":
        print_nodes(rows)
    else:
        print_document(rows, output)


def labels_of(pairs: Sequence[str]) -> Mapping[str, str]:
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise SettingsError(f"--label {pair!r} is not accepted; give KEY=VALUE")
        labels[key] = value
    return labels


async def commit_spec(settings: Settings, edit: Edit) -> str:
    """Make a change of the spec, and push it as one commit in the operator's name; its id."""
    return await trio.to_thread.run_sync(_commit_in_clone, settings, edit)


def _commit_in_clone(settings: Settings, edit: Edit) -> str:
    import git

    url = check_url(settings.require_spec_repo(), allow_local=settings.allow_local_repos)
    branch = settings.spec_branch
    with tempfile.TemporaryDirectory(prefix="trueup-spec-") as directory:
        try:
            clone = git.Repo.clone_from(
                url,
                directory,
                branch=branch,
                single_branch=True,
                allow_unsafe_protocols=settings.allow_local_repos,
                kill_after_timeout=CLONE_TIMEOUT,
            )
        except git.GitCommandError as error:
            raise GitUnavailable(f"the spec repository could not be cloned: {_said(error)}") from None
        with clone:  # ends the git processes that it keeps
            return _pushed(clone, Path(directory), branch, edit)


def _pushed(clone: "git.Repo", directory: Path, branch: str, edit: Edit) -> str:
    """The id of the pushed commit that makes the change."""
    import git

    root = directory / SPEC_FILE
    if root.is_symlink() or not root.is_file():
        raise SettingsError(f"{branch} has no {SPEC_FILE}", hint="write one with `trueup init`")
    changed = spec_edit.edited(read_spec_files(root), edit)
    for path, content in changed.items():
        (directory / path).write_bytes(content)
    clone.index.add(list(changed))
    actor = _actor(clone)
    commit = clone.index.commit(edit.message, author=actor, committer=actor)
    try:
        clone.git.push("origin", f"HEAD:refs/heads/{branch}", kill_after_timeout=CLONE_TIMEOUT)
    except git.GitCommandError as error:
        raise GitRefused(
            f"the commit could not be pushed to {branch}: {_said(error)}",
            hint="if the branch is protected, use --dry-run and add the lines in a pull request",
        ) from None
    return str(commit.hexsha)


def _actor(clone: "git.Repo") -> "git.Actor":
    """Who the operator's git says they are; their account where it says nothing."""
    import git

    reader = clone.config_reader()
    name = reader.get_value("user", "name", "") or getpass.getuser()
    email = reader.get_value("user", "email", "") or f"{getpass.getuser()}@localhost"
    return git.Actor(str(name), str(email))


def _said(error: Exception) -> str:
    """The last line of what git wrote, without the URL that may hold a password."""
    text = str(getattr(error, "stderr", "") or error)
    lines = [line.strip(" '\"") for line in text.splitlines() if line.strip(" '\"")]
    return lines[-1] if lines else "git failed"


def this_host() -> str:
    return socket.getfqdn()
