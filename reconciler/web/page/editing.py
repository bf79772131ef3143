"""Forms that change the spec: filled in, shown as the commit that they will make, and committed."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response

from reconciler.runner import Runner
from reconciler.spec.model import Node, Project, Spec
from reconciler.spec_edit import node_entries
from reconciler.web.apis.known import spec_of
from reconciler.web.apis.nodes import seen_now
from reconciler.web.endpoints import Call
from reconciler.web.page.changes import (
    ADD,
    Change,
    diff_lines,
    node_change,
    node_removal,
    settings_change,
    sync_fields,
)
from reconciler.web.page.deeds import Doing, allow_time
from reconciler.web.page.form_text import labels_text
from reconciler.web.page.gate import Gate, back, html, shown_once
from reconciler.web.page.node_list import STRATEGIES, Entry, digest, rows_of
from reconciler.web.page.render import render
from reconciler.web.page.sessions import Session
from reconciler.web.refusals import RequestRefused

log: structlog.stdlib.BoundLogger = structlog.get_logger()

Form = Mapping[str, str]


class Editing:
    def __init__(self, runner: Runner, gate: Gate, doing: Doing) -> None:
        self._runner = runner
        self._gate = gate
        self._doing = doing

    async def node(self, request: Request) -> Response:
        """The form for a new node, or for the one that `name` names."""
        session = self._allowed(request, "node-form")
        name = request.query_params.get("name", "")
        return _node_form(session, await self._node(name) if name else None)

    async def project(self, request: Request) -> Response:
        session = self._allowed(request, "project-form")
        allow_time(request)
        project = self._project(request.query_params.get("name", ""))
        return _project_form(session, project, await self._entries(project), spec_of(self._runner))

    async def change(self, request: Request) -> Response:
        """First shows the commit; the form shown with it makes it, if the spec is the same by then."""
        session, form = await self._gate.own_form(request)
        allow_time(request)
        change = await self._change(form)
        expected = form.get("expected", "")
        query: dict[str, Any] = {"expected": expected} if expected else {"dryRun": True}
        call = Call(session.caller, query, change.body, change.path, request)
        did = await self._doing.call(change.at, call)
        if not did.success:
            raise RequestRefused(409, did.message)
        if not expected:
            return _commit(session, change, form, did.told)
        log.info("a form was committed", change=change.title, who=session.caller.name)
        if join := did.told.get("join"):
            return shown_once(did.message, str(join), change.section)
        session.say(f"{did.message} ({str(did.told.get('commit') or '')[:12]})", "good")
        return back(f"#{change.section}")

    async def _change(self, form: Form) -> Change:
        match form.get("what"):
            case "add":
                return node_change(None, form)
            case "edit":
                return node_change(await self._node(form.get("name", "")), form)
            case "remove":
                return node_removal(form.get("name", ""))
            case "settings":
                project = self._project(form.get("name", ""))
                return settings_change(project, await self._entries(project), form)
        raise RequestRefused(404, "there is no such form")

    def _allowed(self, request: Request, form: str) -> Session:
        session = self._gate.require(request)
        self._doing.require(form, session.caller)
        return session

    async def _entries(self, project: Project) -> Sequence[Entry]:
        """The project's nodes as the spec's tip has them now."""
        return await self._runner.primary.spec_writer.read(partial(node_entries, project=project.id))

    async def _node(self, name: str) -> Node:
        """As the page shows it: a pass may not have read it yet."""
        nodes = (await seen_now(self._runner)).spec.nodes
        if name not in nodes:
            raise RequestRefused(404, f"the spec has no node {name!r}")
        return nodes[name]

    def _project(self, name: str) -> Project:
        found = next((each for each in spec_of(self._runner).projects.values() if each.id == name), None)
        if found is None:
            raise RequestRefused(404, f"the spec has no project {name!r}")
        return found


def _node_form(session: Session, node: Node | None) -> Response:
    filled = {"name": "", "title": "", "labels": "", "fingerprint": "", "primaries": ""}
    if node is not None:
        filled |= {
            "name": node.id,
            "title": node.name,
            "labels": labels_text(node.labels),
            "fingerprint": node.fingerprint or "",
        }
    title = "Add a node" if node is None else f"Node {node.id}"
    what = "add" if node is None else "edit"
    return html(render("node.html", title=title, what=what, form=filled, csrf=session.csrf))


def _project_form(session: Session, project: Project, entries: Sequence[Entry], spec: Spec) -> Response:
    return html(
        render(
            "project.html",
            title=f"How {project.id} is synced",
            name=project.id,
            fields=sync_fields(project),
            rows=rows_of(entries, spec.nodes),
            seen=digest(entries),
            strategies=STRATEGIES,
            known=sorted(spec.nodes),
            csrf=session.csrf,
        )
    )


def _commit(session: Session, change: Change, form: Form, told: Mapping[str, object]) -> Response:
    again = {name: value for name, value in form.items() if name not in ("csrf", "expected")}
    return html(
        render(
            "commit.html",
            title=change.title,
            subject=told.get("subject", ""),
            author=told.get("author", ""),
            parent=told.get("parent", ""),
            diff=diff_lines(str(told.get("diff", ""))),
            fresh_token=change.at == ADD,
            form=again,
            back=change.section,
            csrf=session.csrf,
        )
    )
