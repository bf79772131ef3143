"""The page's paths: itself, logging in and out, its buttons, its stream, and what a browser loads with it."""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Final

import structlog
import trio
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.api_tokens import digest_of
from reconciler.errors import TrueupError
from reconciler.runner import Runner
from reconciler.token_file import TokensUnusable
from reconciler.web.door import Door
from reconciler.web.endpoints import AnyEndpoint, Endpoint, OpenEndpoint
from reconciler.web.page.deeds import DEEDS, Did, Doing, allow_time
from reconciler.web.page.details import Details
from reconciler.web.page.editing import Editing
from reconciler.web.page.gate import Gate, back, html, shown_once
from reconciler.web.page.look import Looking
from reconciler.web.page.origin import HEADERS, cookie_header, cookie_of, is_secure
from reconciler.web.page.render import TITLES, render
from reconciler.web.page.sessions import LONGEST, Session, Sessions
from reconciler.web.page.stream import LOGIN, MAX_OF_SESSION, watch
from reconciler.web.refusals import RequestRefused
from reconciler.web.streams import EventStream, Streams, Tell

log: structlog.stdlib.BoundLogger = structlog.get_logger()

Handler = Callable[[Request], Awaitable[Response]]

MEDIA: Final[Mapping[str, str]] = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Site:
    """`api`: the endpoints of the API; the buttons do what these do. Streams end once `stop` is set."""

    def __init__(self, runner: Runner, door: Door, api: Iterable[Endpoint], stop: trio.Event) -> None:
        self._runner = runner
        self._door = door
        self._doing = Doing(api)
        self._stop = stop
        self._gate = Gate(Sessions(door.known))
        self._editing = Editing(runner, self._gate, self._doing)
        self._details = Details(runner, self._gate, self._doing)
        self._looking = Looking(runner)
        self._streams = Streams(of_one=MAX_OF_SESSION)

    def endpoints(self) -> list[AnyEndpoint]:
        """What is described to others: the page itself. The paths below it are its own affair."""
        return [
            OpenEndpoint(
                method="GET",
                path="/",
                summary="The page for people: what runs, what waits and why, once they have logged in",
                tag="general",
                handler=_guarded(self.page),
                media="text/html",
                answer=str,
            )
        ]

    def routes(self) -> list[Route]:
        return [
            Route("/page/login", _guarded(self.login), methods=["POST"]),
            Route("/page/logout", _guarded(self.logout), methods=["POST"]),
            Route("/page/do", _guarded(self.do), methods=["POST"]),
            Route("/page/node", _guarded(self._editing.node), methods=["GET"]),
            Route("/page/project", _guarded(self._editing.project), methods=["GET"]),
            Route("/page/service", _guarded(self._details.service), methods=["GET"]),
            Route("/page/plan", _guarded(self._details.plan), methods=["GET"]),
            Route("/page/files", _guarded(self._details.files), methods=["GET"]),
            Route("/page/change", _guarded(self._editing.change), methods=["POST"]),
            Route("/page/stream", _guarded(self.stream), methods=["GET"]),
            Route("/page/{name}", _guarded(_static), methods=["GET"]),
        ]

    # --- who ---------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        session = self._gate.session(request)
        if session is None:
            return self._login_page()
        # Whoever has just pressed a button sees what came of it.
        sections = await self._looking.sections(self._deeds(session), anew=True)
        return html(
            render(
                "page.html",
                titles=TITLES,
                sections=[Markup(each.for_session(session.csrf)) for each in sections],  # noqa: S704 - rendered
                messages=session.hear(),
                me=session.caller.name,
                role=session.caller.role.value,
                csrf=session.csrf,
            )
        )

    async def login(self, request: Request) -> Response:
        form = await self._gate.form(request)
        presented = form.get("token", "").strip()
        try:
            caller = self._door.judge(request, presented.encode())
        except RequestRefused as error:
            refusal = self._login_page(str(error), error.status)
            refusal.headers.update({k: v for k, v in error.headers.items() if k == "Retry-After"})
            return refusal
        self._gate.sessions.end(cookie_of(request.cookies))
        cookie = self._gate.sessions.begin(caller, digest_of(presented))
        log.info("logged in to the page", who=caller.name)
        answer = back()
        answer.headers["Set-Cookie"] = cookie_header(cookie, secure=_secure(request), lasts=LONGEST)
        return answer

    async def logout(self, request: Request) -> Response:
        await self._gate.own_form(request)
        self._gate.sessions.end(cookie_of(request.cookies))
        answer = back()
        answer.headers["Set-Cookie"] = cookie_header("", secure=_secure(request), lasts=0)
        return answer

    def _login_page(self, error: str = "", status: int = 200) -> Response:
        closed = command = ""
        tokens = self._door.tokens
        if tokens is None:
            closed = "Name a file in the setting TRUEUP_API_TOKENS_FILE, make a token and start trueup anew."
            command = "export TRUEUP_API_TOKENS_FILE=/etc/trueup/tokens\ntrueup token new NAME --role operate"
        else:
            try:
                if not tokens.tokens():
                    closed, command = "This makes one.", "trueup token new NAME --role operate"
            except TokensUnusable:
                closed = "The file of tokens cannot be used; the log of trueup serve says why."
        return html(render("login.html", closed=closed, command=command, error=error), status)

    def _deeds(self, session: Session) -> frozenset[str]:
        return self._doing.open_to(session.caller)

    # --- what --------------------------------------------------------------------------------------

    async def do(self, request: Request) -> Response:
        """One button; the next page says what came of it."""
        session, form = await self._gate.own_form(request)
        allow_time(request)
        name = form.get("do", "")
        try:
            did = await self._doing.do(name, form, session.caller, request)
        except TrueupError as error:
            did = Did(False, str(error), {})
        log.info("a button was pressed", button=name, who=session.caller.name, done=did.success)
        section = DEEDS[name].place(form) if name in DEEDS else "overview"
        if join := did.told.get("join"):
            return shown_once(did.message, str(join), section)
        session.say(did.message, "good" if did.success else "bad")
        return back(f"#{section}")

    async def stream(self, request: Request) -> Response:
        session = self._gate.session(request, use=False)
        if session is None:
            return Response(LOGIN, headers=dict(HEADERS), media_type="text/event-stream")

        async def run(tell: Tell) -> None:
            await watch(
                tell,
                bulletin=self._runner.primary.bulletin,
                sections=lambda mine: self._looking.sections(self._deeds(mine)),
                session=lambda: self._gate.session(request, use=False),
                stop=self._stop,
                busy=lambda: len(self._runner.primary.running) > 0,
            )

        return EventStream(request, run, HEADERS, streams=self._streams, key=id(session))


def _guarded(handler: Handler) -> Handler:
    """With the page's headers on every answer, and what is refused as a page that people can read."""

    async def serve(request: Request) -> Response:
        try:
            answered = await handler(request)
        except TrueupError as error:
            status = getattr(error, "status", 503 if error.retryable else 502)
            answered = html(render("refused.html", message=str(error)), status)
            answered.headers.update(getattr(error, "headers", {}))
        for name, value in HEADERS.items():
            answered.headers.setdefault(name, value)
        return answered

    return serve


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in MEDIA:
        raise RequestRefused(404, "there is no such page")
    content, tag = static_file(name)
    headers = {"Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=MEDIA[name])


@cache
def static_file(name: str) -> tuple[bytes, str]:
    content = resources.files("reconciler.web.page").joinpath("static", name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _secure(request: Request) -> bool:
    return is_secure(request.headers, request.url.scheme)
