"""Resources that somebody names on the command line: one that is not there would be waited for in vain."""

import difflib
from collections.abc import Collection

from reconciler.deploy.driver import DRIVERS
from reconciler.desired import Desired
from reconciler.errors import SettingsError

ADOPT = "--adopt"


def check_named(option: str, named: Collection[str], desired: Desired) -> None:
    """Raises SettingsError for a name that nothing has, and for one that the option means nothing for."""
    known = [resource.id for resource in desired.resources]
    for resource in named:
        if resource not in known:
            near = difflib.get_close_matches(resource, known, 1, cutoff=0.4)
            raise SettingsError(
                f"{option} {resource}: the spec has no such service, project target or secret target",
                hint=f"did you mean {near[0]}?" if near else "`trueup get` lists the names",
            )
        if option == ADOPT and not _can_adopt(desired, resource):
            raise SettingsError(
                f"{option} {resource}: nothing of it can be taken over without a deploy",
                hint="that is for services with `deploy.kind: dokploy`; leave the option out",
            )


def _can_adopt(desired: Desired, resource: str) -> bool:
    service = desired.services().get(resource)
    driver = None if service is None else DRIVERS.get(str(service.service.deploy.__struct_config__.tag))
    return driver is not None and driver.adopts
