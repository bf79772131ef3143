"""What all changes of the spec over the API share: how they are asked for, answered and refused."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from starlette.responses import Response

from reconciler.actor import person
from reconciler.control.situation import DecisionRefused, UnknownName
from reconciler.errors import SettingsError, SpecInvalid
from reconciler.node_work import How
from reconciler.spec_write import BranchProtected, Written
from reconciler.web.answers import answer
from reconciler.web.endpoints import Asked, Call, Caller, Model
from reconciler.web.refusals import RequestRefused

TIME: Final = 120.0
"""Seconds that a change may take: the remote is asked, and pushed to."""

REFUSALS: Final[Mapping[int, str]] = {
    404: "There is nothing of that name in the spec.",
    409: "It cannot be now: the spec was changed since, or the branch is protected; then `diff` says what to"
    " put into a pull request.",
    422: "The spec would have an error.",
    503: "The repository cannot be reached, or others keep changing it; try again in a moment.",
}

DECISION_REFUSALS: Final[Mapping[int, str]] = {
    404: "There is nothing of that name.",
    409: "It cannot be, or would change nothing; the message says why.",
    422: "A value is of the right form, and will not do.",
    503: "The repository cannot be reached, or others keep deciding; try again in a moment.",
}


class Writing(Asked, frozen=True):
    """How a change of the spec is made."""

    dry_run: bool = False
    """Only answer what would be done."""
    expected: str | None = None
    """The commit of the spec that whoever asks has seen: refused if the spec says something else by now."""


class Because(Asked, frozen=True):
    reason: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    """Why, for people."""


class Wrote(Model, frozen=True):
    """A commit to the spec; `commit` is null where none was made: it would change nothing, or `dryRun`."""

    success: bool
    message: str
    commit: str | None
    parent: str
    """The commit of the spec that it is made on."""
    author: str
    subject: str
    diff: str


def how(caller: Caller, asked: Writing) -> How:
    return How(person(caller.name), asked.expected, asked.dry_run)


def wrote(written: Written, message: str) -> dict[str, Any]:
    """The fields of a `Wrote`."""
    if not written.commit:
        message = "this would be committed" if written.diff else "the spec says so already"
    return {
        "success": True,
        "message": message,
        "commit": written.commit or None,
        "parent": written.parent,
        "author": written.author,
        "subject": written.message,
        "diff": written.diff,
    }


Handler = Callable[[Call[Any, Any]], Awaitable[msgspec.Struct | Response]]


def judged(handler: Handler) -> Handler:
    """The handler, with what its work refuses told in the words and statuses of the API."""

    async def serve(call: Call[Any, Any]) -> msgspec.Struct | Response:
        try:
            return await handler(call)
        except BranchProtected as error:
            refusal = {"success": False, "message": str(error), "reason": error.reason}
            lines = {"diff": error.written.diff, "subject": error.written.message}
            return answer(refusal | lines | ({"join": error.join} if error.join else {}), 409)
        except SpecInvalid as error:
            problems = "; ".join(map(str, error.problems))
            raise RequestRefused(422, f"the spec would have an error: {problems}") from None
        except SettingsError as error:
            raise RequestRefused(409, str(error)) from None
        except DecisionRefused as error:
            status = 404 if isinstance(error, UnknownName) else 409
            refused = {"success": False, "message": str(error), "reason": error.reason}
            return answer(refused, status)

    return serve
