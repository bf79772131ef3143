"""Parts of the spec that are valid and never acted on. Pure.

A resource that uses one is reported with a reason and left alone: a rule that is silently ignored is worse
than one that is refused. What this version does not act on yet is `NotImplemented`; at present there is none.
"""

from reconciler.observation import Setback
from reconciler.spec.model import ManualDeploy, Service
from reconciler.status.conditions import Reason


def unbuilt_in_service(service: Service) -> Setback | None:
    if isinstance(service.deploy, ManualDeploy):
        return Setback(
            Reason.MANUAL, f"{service.name} is deployed by hand; trueup only reports it", blocks=False
        )
    return None
