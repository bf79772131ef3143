"""Asks the drivers what is there of a service: what `reconciler.observe` looks at services with."""

from collections.abc import Awaitable, Callable

from reconciler.deploy.context import RunContext
from reconciler.deploy.driver import DRIVERS
from reconciler.deploy.request import LookRequest, ReadCredential, no_credential
from reconciler.desired_model import DesiredService
from reconciler.errors import TrueupError
from reconciler.observation import Observation, Unknown
from reconciler.status.documents import ServiceStatus

Look = Callable[[DesiredService, ServiceStatus | None], Awaitable[Observation | None]]


def looking(context: RunContext, *, here: bool, credential: ReadCredential = no_credential) -> Look:
    """`here`: this is a pass of the primary. A plan may be made anywhere, and asks no driver that looks at
    the host it runs on."""

    async def look(desired: DesiredService, status: ServiceStatus | None) -> Observation | None:
        deploy = desired.service.deploy
        driver = DRIVERS.get(str(deploy.__struct_config__.tag))
        if driver is None or (driver.is_local and not here):
            return None
        try:
            wanted = str(desired.hash or "")
            return await driver.look(LookRequest(desired.service, status, wanted, context, credential))
        except TrueupError as error:
            return Unknown(error.reason, str(error))

    return look
