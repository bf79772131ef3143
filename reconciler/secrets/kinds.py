"""The kinds of secret sources by the name they have in the spec."""

from collections.abc import Callable, Mapping
from typing import Final

from reconciler.secrets.age import AgeSource
from reconciler.secrets.env_file import EnvFileSource
from reconciler.secrets.environ import EnvironSource
from reconciler.secrets.github_actions import GithubActionsSource
from reconciler.secrets.infisical import InfisicalSource
from reconciler.secrets.sops import SopsSource
from reconciler.secrets.source import Source, SourceContext
from reconciler.spec.model import SecretSource

REGISTRY: Final[Mapping[str, Callable[[SecretSource, SourceContext], Source]]] = {
    "infisical": InfisicalSource,
    "env_file": EnvFileSource,
    "environ": EnvironSource,
    "age": AgeSource,
    "sops": SopsSource,
    "github_actions": GithubActionsSource,
}

KEPT_ON_DISK: Final = frozenset({"infisical"})
"""The kinds that the cache on disk is for: those behind a network. All others have nothing to gain by it."""
