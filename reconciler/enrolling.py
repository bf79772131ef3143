"""Who may connect, as git has it at this moment: for passes, and at once for whoever has just changed it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reconciler.control.state import ControlState, fold
from reconciler.pairing import enrolments
from reconciler.pass_status import last_good_spec
from reconciler.spec.model import Spec
from reconciler.spec_source import read_spec
from reconciler.status.documents import Recorded
from reconciler.sync.enrolment import Enrolment

if TYPE_CHECKING:
    from reconciler.primary import Primary

LONGEST_LOOK: Final = 10.0
"""Seconds that people who look wait for what git has; a damaged mirror is made anew from its remote."""


@dataclass(frozen=True, slots=True)
class Basis:
    """By what it is judged who may connect, and how a node is shown to people."""

    spec: Spec
    recorded: Recorded
    control: ControlState


async def basis(primary: "Primary") -> Basis:
    """The tip of the spec, the status files and operators' records, as the mirrors have them now.

    Not what a pass has read when it began: a node that was revoked since would be let in again, and one whose
    new token was revoked would be shown as if it might come.
    """
    recorded = await primary.status.read()
    records = await primary.operators.read_after(recorded)
    return Basis(await newest_spec(primary, recorded), recorded, fold(records))


async def enrolled(primary: "Primary") -> list[Enrolment]:
    """Those who may connect, by what is in git now."""
    found = await basis(primary)
    return enrolments(found.spec, found.recorded, found.control)


async def newest_spec(primary: "Primary", recorded: Recorded) -> Spec:
    """What the spec says at its tip, as the mirror has it now, or said when it last could be used."""
    settings = primary.settings
    found = await read_spec(
        primary.repositories.mirror(settings.require_spec_repo()),
        settings.spec_branch,
        last_good=last_good_spec(recorded),
        cache=primary.specs,
    )
    return found.spec


async def enrol(primary: "Primary") -> None:
    """Let exactly those agents connect; others that are connected are disconnected before this returns."""
    async with primary.enrolling:
        if primary.hub is not None:
            await primary.hub.update(await enrolled(primary))
