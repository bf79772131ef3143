"""Which driver serves which kind of `deploy:`."""

from collections.abc import Mapping
from types import MappingProxyType

from reconciler.deploy.agent import AgentDriver
from reconciler.deploy.compose import ComposeDriver
from reconciler.deploy.dokploy import DokployDriver
from reconciler.deploy.invoke import InvokeDriver
from reconciler.deploy.request import DeployOutcome, DeployRequest, Driver, ManualService
from reconciler.spec.model import Deploy, ManualDeploy

__all__ = ["DRIVERS", "DeployOutcome", "DeployRequest", "Driver", "ManualService", "driver_for"]

DRIVERS: Mapping[str, Driver] = MappingProxyType(
    {
        "agent": AgentDriver(),
        "compose": ComposeDriver(),
        "dokploy": DokployDriver(),
        "invoke": InvokeDriver(),
    }
)
"""By the spec's `deploy.kind`."""


def driver_for(deploy: Deploy) -> Driver:
    """The driver for a service's `deploy`, before anything is checked out for it.

    Raises ManualService for what people deploy by hand.
    """
    if isinstance(deploy, ManualDeploy):
        raise ManualService("deploy.kind: manual: it is deployed by hand and only reported here")
    return DRIVERS[str(deploy.__struct_config__.tag)]
