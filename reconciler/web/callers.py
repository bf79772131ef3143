"""Who sends a request over the socket in the state directory: whoever may open it may do everything."""

import getpass
from urllib.parse import unquote

from starlette.requests import Request

from reconciler.actor import ACTOR, IDENTITY
from reconciler.web.endpoints import Caller, Role


async def local_caller(request: Request) -> Caller:
    """The owner of the socket, under the name that their git gives them."""
    said = unquote(request.headers.get(ACTOR, ""))
    name = said if IDENTITY.fullmatch(said) and said.isprintable() else getpass.getuser()
    return Caller(name, Role.OPERATE)
