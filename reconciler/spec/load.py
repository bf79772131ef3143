"""From the bytes of a spec's YAML files to the model, with every problem found. Pure: no I/O.

The caller reads `trueup.yaml` at some commit, asks `included_paths` which further files of that tree
belong to it, and hands all of them to `load`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.errors import Problem, SpecInvalid
from reconciler.spec.model import Spec

SPEC_FILE = "trueup.yaml"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a spec's files hold.

    `spec` has every valid resource, or is None where the document as a whole is unusable (a problem
    without a resource). `frozen` names the resources that are left out of `spec`, as `services/web`
    (kind and name, no environment), each with the reason: its own problem, or that of one it refers to.
    They stay at their last good state; what they left behind must not be pruned.
    """

    spec: Spec | None
    problems: tuple[Problem, ...] = ()
    frozen: Mapping[str, str] = field(default_factory=dict)

    def is_frozen(self, resource: str) -> bool:
        """Whether a resource id, in the spec's form or in the status branch's, is left out of `spec`."""
        raise NotImplementedError


def included_paths(root_bytes: bytes, all_paths: Iterable[str]) -> tuple[str, ...]:
    """The paths of `all_paths` that the root file's `include` names, sorted; none where it is broken."""
    raise NotImplementedError


def load(files: Mapping[str, bytes], *, root: str = SPEC_FILE) -> Loaded:
    """Read a spec from its files; never raises for bad input."""
    raise NotImplementedError


def load_or_raise(files: Mapping[str, bytes], *, root: str = SPEC_FILE) -> Spec:
    """The spec, wholly valid. Raises SpecInvalid with every problem otherwise."""
    loaded = load(files, root=root)
    if loaded.spec is None or loaded.problems:
        raise SpecInvalid(list(loaded.problems))
    return loaded.spec
