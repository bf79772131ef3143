"""What the last pass of a running primary found before it changed anything: kept for those who ask."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from reconciler.control.state import ControlState
from reconciler.errors import Problem
from reconciler.plan import Finding, Plan
from reconciler.spec.model import Spec


@dataclass(frozen=True, slots=True)
class Looked:
    """`spec` is the head's, with what releases bring of their own."""

    at: datetime
    spec: Spec
    plan: Plan
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    control: ControlState

    def findings(self) -> Mapping[str, Finding]:
        return {finding.resource: finding for finding in self.plan.findings}
