"""The secret targets of a pass: what is at GitHub, and writing there what a step asks for."""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from reconciler.apply import Details
from reconciler.desired_model import DesiredTarget
from reconciler.desired_target import place_of, target_environment
from reconciler.errors import StepFailed, TrueupError
from reconciler.github.client import DEFAULT_API, GitHub, PublicKey
from reconciler.github.errors import GitHubDown, GitHubRefused
from reconciler.github.pace import Pace
from reconciler.github.scopes import EnvironmentScope, OrganizationScope, RepositoryScope, Scope, SecretMeta
from reconciler.github.token import read_token
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import Secret
from reconciler.spec.model import Credential, SecretCredential, SecretTarget
from reconciler.status.conditions import Reason
from reconciler.status.documents import TargetStatus
from reconciler.target_work import Work, incomplete_groups, is_foreign, owned_at, work_at

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class PushFailed(TrueupError):
    """Not everything was written; `details` says what was. The reason is the cause's, or GroupIncomplete."""

    retryable = True

    def __init__(self, message: str, reason: str, details: Details) -> None:
        super().__init__(message)
        self._reason = reason
        self.details = details

    @property
    def reason(self) -> str:  # type: ignore[override]
        return self._reason


class PruneRefused(StepFailed):
    """More would be deleted than one pass may."""

    reason = "PruneRefused"


@dataclass(slots=True)
class SecretTargets:
    """Access to the targets with the credentials of one spec's sources."""

    store: SecretStore
    pace: Pace
    api_url: str | None = None

    async def look(self, target: SecretTarget) -> dict[str, SecretMeta]:
        """The names that are there. Raises GitHubDown, GitHubRefused, NoToken and what a credential does."""
        async with await self.github(target) as github:
            return await github.list_secrets(scope_of(target))

    async def push(
        self, desired: DesiredTarget, status: TargetStatus | None, *, everything: bool, max_prune: float
    ) -> Details:
        """Write what differs from what is there right now, the members of a group one after the other.

        Raises PushFailed after whatever could be written; the errors of `look` before anything is.
        """
        target, scope = desired.target, scope_of(desired.target)
        # Alone there: what another target puts in place of ours must not look like ours and be deleted.
        async with self.pace.alone(str(place_of(target))), await self.github(target) as github:
            work = work_at(desired, status, await github.list_secrets(scope), everything=everything)
            written, failure = await self._write(github, desired, work)
            there: dict[str, SecretMeta] = {}
            deleted: list[str] = []
            try:
                # Asked once more: the times that GitHub gave to our own writes are how we know them again.
                there = await github.list_secrets(scope)
                if failure is None:
                    refuse_to_prune_too_much(target, work, status, max_prune)
                    owned = owned_at(desired, status)
                    for name in work.delete:
                        if not is_foreign(name, owned, there):
                            await github.delete_secret(scope, name)
                        deleted.append(name)
            except (GitHubDown, GitHubRefused, PruneRefused) as error:
                failure = failure or error
        for name in work.disowned:
            log.warning("a secret that is not wanted any more is not ours", resource=desired.id, name=name)
        listed = [name for name in written if name in there]
        details = {
            "names": listed,
            "updated": [there[name].updated_at for name in listed],
            "deleted": [*deleted, *work.disowned],
            "held": list(work.held),
        }
        lost = [name for name in written if name not in there]
        if failure is None and lost:
            failure = GitHubDown(f"{scope}: GitHub took {', '.join(lost)} and does not list it")
        if failure is None:
            return details
        begun = incomplete_groups(target, {name: name in written for name in work.write})
        if begun:
            message = f"a group is incomplete, {'; '.join(begun)}: {failure}"
            raise PushFailed(message, Reason.GROUP_INCOMPLETE, details)
        raise PushFailed(str(failure), failure.reason, details)

    async def github(self, target: SecretTarget) -> GitHub:
        """A client with the target's token."""
        return GitHub(
            self.api_url or DEFAULT_API,
            await self._token(target),
            patience=target.timeout,
            pace=self.pace,
        )

    async def _token(self, target: SecretTarget) -> Secret:
        environment = self._environment(target.token) if target.token is not None else ""
        return await read_token(
            self.store,
            target.token,
            place=scope_of(target),
            key="the target's `token`",
            environment=environment,
        )

    def _environment(self, credential: Credential) -> str:
        """The environment for which a token is read that another source holds: as for the values."""
        source = self.store.spec_of(credential.source) if isinstance(credential, SecretCredential) else None
        return target_environment(source) if source is not None else ""

    async def _write(
        self, github: GitHub, desired: DesiredTarget, work: Work
    ) -> tuple[list[str], TrueupError | None]:
        """The names that were written, and what ended the writing early."""
        written: list[str] = []
        if not work.write:
            return written, None
        scope = scope_of(desired.target)
        try:
            key: PublicKey = await github.public_key(scope)
            target = desired.target
            ids = [
                await github.repository_id(f"{target.org}/{repo}") for repo in target.selected_repositories
            ]
            for name in work.write:
                await github.put_secret(
                    scope,
                    name,
                    desired.values[name].value,
                    key,
                    visibility=desired.target.visibility,
                    selected_repository_ids=ids,
                )
                written.append(name)
        except (GitHubDown, GitHubRefused) as error:
            return written, error
        return written, None


def scope_of(target: SecretTarget) -> Scope:
    if target.org is not None:
        return OrganizationScope(target.org)
    assert target.repo is not None  # the spec has one of the two
    if target.environment is not None:
        return EnvironmentScope(target.repo, target.environment)
    return RepositoryScope(target.repo)


def refuse_to_prune_too_much(
    target: SecretTarget, work: Work, status: TargetStatus | None, max_prune: float
) -> None:
    owned: Mapping[str, str] = status.owned if status is not None else {}
    if len(work.delete) > max(1, max_prune * len(owned)):
        raise PruneRefused(
            f"{scope_of(target)}: {len(work.delete)} of {len(owned)} secrets would be deleted, more than "
            "limits.max_prune allows",
            hint="raise it for this change, or restore what was removed by mistake",
        )
