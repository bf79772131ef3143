"""The version of this software, as installed."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def agent_version() -> str:
    """Such as `1.2.0`; `unknown` where the package runs without being installed."""
    try:
        return version("trueup")
    except PackageNotFoundError:
        return "unknown"
