"""`trueup hotfix`: a branch from what an environment runs, and its tip for that environment alone."""

from dataclasses import dataclass

from reconciler.control.records import Record
from reconciler.control.requests import Asked, pending_request
from reconciler.control.situation import DecisionRefused, Situation, told, unknown
from reconciler.decisions import Decided, Desk, ask
from reconciler.errors import TrueupError
from reconciler.git.mirror import Mirror
from reconciler.spec.model import Unit
from reconciler.status.documents import Release


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be fixed: what an environment runs of a unit, and where its code is."""

    environment: str
    unit: Unit
    release: Release
    mirror: Mirror
    branch: str
    named: bool
    """Somebody gave the branch its name."""

    @property
    def runs(self) -> str:
        return f"{self.release.tag}, which {self.environment} runs of {self.unit.name}"


@dataclass(frozen=True, slots=True)
class Begun:
    """A fix that was begun, and what to do next. `refusal`: why its branch could not be made from here."""

    target: Target
    created: bool
    refusal: str
    commands: tuple[str, ...]


async def hotfix(
    desk: Desk,
    environment: str,
    *,
    unit: str | None,
    fix_branch: str | None,
    tag: str | None,
    reason: str,
    confirmed: bool,
) -> Decided | Begun:
    """Make the branch, or record its tip (or the commit of a tag) where that is confirmed."""
    target = await _target(desk, environment, unit, fix_branch)
    refs = await target.mirror.refs()
    if tag is None and not confirmed and refs.heads.get(target.branch) in (None, target.release.commit):
        return await _begin(target, there=target.branch in refs.heads)
    if tag is not None:
        if tag not in refs.tags:
            raise unknown(f"tag in {target.unit.repository}", tag, refs.tags)
        commit, name = refs.tags[tag], f"the tag {tag}"
    else:
        if target.branch not in refs.heads:
            raise DecisionRefused(
                f"{target.unit.repository} has no branch {target.branch!r}",
                hint=f"`trueup hotfix {environment} --unit {target.unit.name}` makes it",
            )
        commit, name = refs.heads[target.branch], f"the branch {target.branch}"
    await _require_descent(target, commit, name)
    return await ask(desk, lambda at: _asked(at, target, commit, tag or "", reason), confirmed=confirmed)


def _asked(at: Situation, target: Target, commit: str, tag: str, reason: str) -> Asked:
    name = target.unit.name
    pending = pending_request(at, target.environment, name)
    if pending is not None and (pending.kind, pending.commit) == ("hotfix", commit):
        raise DecisionRefused(f"{commit[:12]} of {name} was asked for already, {told(pending)}")
    record: Record = at.decide(
        "hotfix", environment=target.environment, unit=name, commit=commit, tag=tag, reason=reason
    )
    return Asked((record,))


async def _target(desk: Desk, environment: str, unit: str | None, branch: str | None) -> Target:
    at = desk.situation
    name = at.only(environment, unit)
    status = at.unit_status(environment, name)
    if status is None:
        raise DecisionRefused(f"{environment} runs no release of {name} that could be fixed")
    known = at.spec.units[name]
    url = at.spec.repositories[known.repository].url
    await desk.repositories.refresh(url)
    short = status.release.tag.removeprefix(known.tag_prefix)
    default = f"hotfix/{name.replace('/', '-')}-{short}"
    return Target(
        environment,
        known,
        status.release,
        desk.repositories.mirror(url),
        branch or default,
        branch is not None,
    )


async def _require_descent(target: Target, commit: str, name: str) -> None:
    if commit == target.release.commit:
        raise DecisionRefused(
            f"{name} has no commit over {target.runs}", hint="commit the fix there, and push it"
        )
    if not await target.mirror.is_ancestor(target.release.commit, commit):
        raise DecisionRefused(
            f"{name} does not descend from {target.runs}",
            hint=f"begin the fix at {target.release.commit[:12]}, or promote what it holds",
        )


async def _begin(target: Target, *, there: bool) -> Begun:
    """Make the branch at the remote where that is allowed; say what to do next."""
    commit, branch = target.release.commit, target.branch
    ref, refusal = f"refs/heads/{branch}", ""
    if not there:
        try:
            if not await target.mirror.push(ref, commit, expected=None):
                refusal = f"somebody else made {branch} just now; fetch it"
        except TrueupError as error:
            refusal = str(error)
    start = f"git switch {branch}" if not refusal else f"git switch -c {branch} {commit}"
    named = f" --fix-branch {branch}" if target.named else ""
    commands = [
        "git fetch origin",
        start,
        "git commit",
        f"git push origin {branch}",
        f"trueup hotfix {target.environment} --unit {target.unit.name}{named} --confirm deploy",
    ]
    return Begun(target, not there and not refusal, refusal, tuple(commands))
