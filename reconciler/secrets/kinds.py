"""The kinds of secret sources by the name they have in the spec."""

from collections.abc import Callable, Mapping
from typing import Final

from reconciler.secrets.env_file import EnvFileSource
from reconciler.secrets.environ import EnvironSource
from reconciler.secrets.infisical import InfisicalSource
from reconciler.secrets.source import Source, SourceContext, UnsupportedSource
from reconciler.spec.model import SecretSource

REGISTRY: Final[Mapping[str, Callable[[SecretSource, SourceContext], Source]]] = {
    "infisical": InfisicalSource,
    "env_file": EnvFileSource,
    "environ": EnvironSource,
    "age": UnsupportedSource,
    "sops": UnsupportedSource,
    "github_actions": UnsupportedSource,
}

KEPT_ON_DISK: Final = frozenset({"infisical"})
"""The kinds that the cache on disk is for: those behind a network. All others have nothing to gain by it."""
