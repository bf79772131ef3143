"""What every path of the page goes through: who is logged in, whose form it is, and how it is answered."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from reconciler.web.bodies import Bodies
from reconciler.web.page.origin import cookie_of, is_own, same
from reconciler.web.page.render import render
from reconciler.web.page.sessions import Session, Sessions
from reconciler.web.refusals import NotAllowed, NotAuthenticated, RequestRefused

MAX_FORM: Final = 256 * 1024
"""Bytes."""

MAX_FIELDS: Final = 1000


class Gate:
    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self._bodies = Bodies(most=MAX_FORM)

    def session(self, request: Request, *, use: bool = True) -> Session | None:
        return self.sessions.find(cookie_of(request.cookies), use=use)

    def require(self, request: Request) -> Session:
        """Raises NotAuthenticated where nobody is logged in."""
        session = self.session(request)
        if session is None:
            raise NotAuthenticated("nobody is logged in, or no more; go back and log in")
        return session

    async def own_form(self, request: Request) -> tuple[Session, Mapping[str, str]]:
        """A form of our own page, by whoever is logged in. Raises NotAuthenticated, NotAllowed."""
        session = self.require(request)
        form = await self.form(request)
        if not same(form.get("csrf", ""), session.csrf):
            raise NotAllowed("the form is not of this session; load the page again")
        return session, form

    async def form(self, request: Request) -> Mapping[str, str]:
        """The fields of a form that our own page sent. Raises NotAllowed, RequestRefused."""
        if not is_own(request.headers):
            raise NotAllowed("only forms of this page itself are taken")
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/x-www-form-urlencoded":
            raise RequestRefused(415, "a form is application/x-www-form-urlencoded")
        async with self._bodies.read(request) as body:
            try:
                return dict(
                    parse_qsl(
                        body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
                    )
                )
            except ValueError:  # too many fields, or no UTF-8
                raise RequestRefused(400, "the form is not as it should be") from None


def html(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type="text/html")


def back(fragment: str = "") -> Response:
    return RedirectResponse(f"/{fragment}", 303)


def shown_once(title: str, secret: str, section: str) -> Response:
    """A secret goes to whoever asked for it in this answer, and is kept nowhere."""
    return html(render("once.html", title=title, secret=secret, back=f"#{section}"))
