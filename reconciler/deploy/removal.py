"""Taking away what left the spec: what the drivers say of it, and having them do it."""

from collections.abc import Callable

from reconciler.deploy.context import RunContext
from reconciler.deploy.driver import DRIVERS
from reconciler.deploy.request import CannotRemove, Nodes, ReadCredential, RemoveRequest
from reconciler.desired_model import Desired
from reconciler.errors import StepFailed
from reconciler.prune import Removable
from reconciler.status.documents import Recorded, ServiceStatus

DEPENDS_ON = "dependsOn"
"""Key of an inventory under which the services are kept that one depended on, separated by spaces."""


def removable(desired: Desired, recorded: Recorded) -> Removable:
    """What can be removed, and who is where, by what was recorded and what the spec says."""
    places: dict[str, str] = {}
    for id, status in recorded.services.items():
        driver = DRIVERS.get(status.deploy)
        if driver is not None and driver.removes and (place := driver.place(status.inventory)):
            places[id] = f"{status.deploy} {place}"
    claims: dict[str, str] = {}
    for id, wanted in desired.services().items():
        kind = str(wanted.service.deploy.__struct_config__.tag)
        driver, known = DRIVERS.get(kind), recorded.services.get(id)
        inventory = known.inventory if known is not None and known.deploy == kind else {}
        if driver is not None and (place := driver.place_of(wanted.service, inventory)):
            claims[id] = f"{kind} {place}"
    depends_on = {
        id: status.inventory.get(DEPENDS_ON, "").split() for id, status in recorded.services.items()
    }
    targets = {
        id: (status.node, status.target_path)
        for id, status in recorded.syncs.items()
        # Of a node that left the spec as well, no agent can be asked any more.
        if status.last_attempted_revision and f"nodes/{status.node}" in desired.ids
    }
    return Removable(places, claims, depends_on, targets)


async def remove(
    status: ServiceStatus,
    context: RunContext,
    nodes: Nodes | None,
    credential: ReadCredential,
    log: Callable[[str], None],
) -> None:
    """Have its driver remove a service. Raises CannotRemove, or why its system cannot be asked."""
    try:
        await DRIVERS[status.deploy].remove(
            RemoveRequest(status.id, status.inventory, context, nodes, credential, log)
        )
    except CannotRemove:
        raise
    except StepFailed as error:
        raise CannotRemove(error.message, hint=error.hint) from None
