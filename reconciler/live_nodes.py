"""What `trueup node` does to a node that may be connected: by the running primary where there is one.

It acts on live connections at once. Where none runs, what is in git is changed all the same, and the next
pass ends what has no right any more.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import click

from reconciler import live, nodes
from reconciler.console import print_document
from reconciler.control import orders
from reconciler.control.records import describe
from reconciler.decisions import record
from reconciler.joining import addresses
from reconciler.operations import open_desk
from reconciler.settings import Settings

NOT_AT_ONCE: Final = "no primary is running here: connections that lost their right end with the next pass"


async def rotate_token(settings: Settings, name: str, *, primaries: Sequence[str]) -> list[str]:
    """Give a node a new token. Returns how to join."""
    body = {"primaries": addresses(primaries)}
    document = await _ask(settings, name, "rotate-token", body)
    if document is None:
        return [*await nodes.rotate_token(settings, name, primaries=primaries), "", NOT_AT_ONCE]
    return [_said(document), "", *nodes.how_to_join(document["join"])]


async def rotate_certificate(settings: Settings, name: str) -> str:
    """Have a node's agent take another certificate. Only a running primary has a connection to it."""
    document = await live.request(settings, "POST", _path(name, "rotate-certificate"))
    return str(document["message"])


async def repair(settings: Settings, name: str) -> list[str]:
    """Forget a node's certificate, so that its host can join again."""
    document = await _ask(settings, name, "repair")
    if document is None:
        return [*await nodes.repair_node(settings, name), NOT_AT_ONCE]
    return [_said(document)]


async def revoke(settings: Settings, name: str, reason: str) -> list[str]:
    """Take a node's token back by a record, which acts over the spec."""
    document = await _ask(settings, name, "revoke", {"reason": reason})
    if document is not None:
        return [f"{_said(document)}; its agent is disconnected"]
    decided = await record(await open_desk(settings), lambda at: [orders.revoke(at, name, reason)])
    [made] = decided.appended.records
    return [f"recorded {made.number}: {describe(made)} ({decided.appended.commit[:12]})", NOT_AT_ONCE]


async def test(settings: Settings, name: str, output: str) -> int:
    """Whether a node's agent is connected and answers; the exit code. Only a running primary knows."""
    document = await live.request(settings, "POST", _path(name, "test"))
    if output != "table":
        print_document({"version": 1, "node": name, **document}, output)
    else:
        click.echo(document["message"])
        for line in _about(document) if document["connected"] else ():
            click.echo(line)
    return 0 if document["success"] else 1


def _about(document: Mapping[str, Any]) -> list[str]:
    known = {"agent": "agentVersion", "protocol": "protocol", "from": "address"}
    lines = [f"  {what}: {document[key]}" for what, key in known.items() if document.get(key) is not None]
    since = document.get("connectedForSeconds")
    return lines if since is None else [*lines, f"  connected for: {since:.0f}s"]


async def _ask(settings: Settings, name: str, verb: str, body: Mapping[str, Any] | None = None) -> Any:
    """What a running primary answers; None where there is none on this machine."""
    try:
        return await live.request_if_running(settings, "POST", _path(name, verb), body=body)
    except live.PrimaryRefused as error:
        for line in _for_a_pull_request(error.document):
            click.echo(line)
        raise


def _for_a_pull_request(document: Mapping[str, Any]) -> list[str]:
    """What the primary may not push itself, where that is why it refused."""
    if not document.get("diff"):
        return []
    join = document.get("join")
    return [
        "for a pull request:",
        "",
        str(document["diff"]),
        *(nodes.how_to_join(str(join)) if join else ()),
    ]


def _path(name: str, verb: str) -> str:
    return f"/api/sync/nodes/{quote(name, safe='')}/{verb}"


def _said(document: Mapping[str, Any]) -> str:
    commit = document.get("commit")
    return f"{document['message']}: {commit[:12]}" if commit else str(document["message"])
