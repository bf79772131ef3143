"""Which driver serves which kind of `deploy:`."""

from collections.abc import Mapping
from types import MappingProxyType

from reconciler.deploy.agent import AgentDriver
from reconciler.deploy.compose import ComposeDriver
from reconciler.deploy.invoke import InvokeDriver
from reconciler.deploy.request import DeployOutcome, DeployRequest, Driver, ManualService
from reconciler.errors import NotYetImplemented
from reconciler.spec.model import Deploy, ManualDeploy

__all__ = ["DRIVERS", "DeployOutcome", "DeployRequest", "Driver", "ManualService", "driver_for"]

DRIVERS: Mapping[str, Driver] = MappingProxyType(
    {"agent": AgentDriver(), "compose": ComposeDriver(), "invoke": InvokeDriver()}
)
"""By the spec's `deploy.kind`."""


def driver_for(deploy: Deploy) -> Driver:
    """The driver for a service's `deploy`, before anything is checked out for it.

    Raises ManualService for what people deploy by hand, NotYetImplemented for a kind that this version
    does not know how to deploy.
    """
    kind = str(deploy.__struct_config__.tag)
    driver = DRIVERS.get(kind)
    if driver is not None:
        return driver
    if isinstance(deploy, ManualDeploy):
        raise ManualService("deploy.kind: manual: it is deployed by hand and only reported here")
    raise NotYetImplemented(
        f"deploy.kind: {kind} is valid, but this version of trueup cannot deploy it yet",
        hint="use `kind: invoke` with a task that does it",
    )
