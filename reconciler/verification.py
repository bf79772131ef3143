"""Which revisions may run: those that carry the signature which their repository's `verify` asks for.

The signers are read from the spec repository, at the tip of the spec's branch whatever spec the pass works
with, so that a commit there allows a new key or withdraws an old one at once. What could not be checked does
not run.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import trio

from reconciler.desired_model import Revision
from reconciler.errors import SettingsError, TrueupError
from reconciler.git.signers import MAX_SIGNERS, SignatureInvalid, Signers, parse_signers
from reconciler.observation import Setback
from reconciler.release.current import Release
from reconciler.release.decide import Decision
from reconciler.repositories import Repositories
from reconciler.settings import Settings
from reconciler.spec.model import Repository, Spec
from reconciler.status.documents import Waiting

MAX_PARALLEL_CHECKS = 8

Revisions = Mapping[tuple[str, str], Revision | Setback]


@dataclass(frozen=True, slots=True)
class Verification:
    """Checks revisions of a spec's repositories. What a branch is at counts as a revision too."""

    repositories: Repositories
    settings: Settings

    async def check(self, repository: Repository, revision: Revision, *, oid: str | None = None) -> None:
        """Raise SignatureInvalid unless the release may run; other errors where that is not known.

        `oid`: the tag's object, where trueup has just made it and not pushed it yet.
        """
        if repository.verify.signatures == "none":
            return
        if oid is not None and repository.verify.signatures == "tag" and not self.settings.signing_key_file:
            raise SettingsError(
                f"repositories.{repository.name}.verify.signatures: tag accepts signed tags alone, and "
                "trueup has no key to sign those that it makes",
                hint="set TRUEUP_SIGNING_KEY_FILE, or say `cut: external` and make the tags elsewhere",
            )
        signers = await self._signers(repository)
        mirror = self.repositories.mirror(repository.url)
        if repository.verify.signatures == "tag":
            await self.repositories.signatures.check_tag(
                mirror, revision.ref, revision.commit, signers, oid=oid
            )
        else:
            await self.repositories.signatures.check_commit(mirror, revision.commit, signers)

    async def check_branch(self, repository: Repository, branch: str, commit: str) -> None:
        """The same for the tip of a branch, which no tag speaks for."""
        if repository.verify.signatures == "tag":
            raise SignatureInvalid(
                f"repositories.{repository.name}.verify.signatures: tag accepts signed tags alone, "
                f"and this reads the branch {branch}",
                hint="give a project an `environment`, or say `signatures: commit`",
            )
        await self.check(repository, Revision(branch, commit))

    async def decisions(
        self, spec: Spec, decisions: Mapping[tuple[str, str], Decision]
    ) -> dict[tuple[str, str], Decision]:
        """By (unit, environment): with what may not run held back, or as a setback where it runs already."""
        coming = {
            key: Revision(each.next.tag, each.next.commit)
            for key, each in decisions.items()
            if each.next is not None and not (each.next.cut and self._policy(spec, key) == "tag")
        }
        running = {
            key: Revision(each.current.tag, each.current.commit)
            for key, each in decisions.items()
            if isinstance(each.current, Release)
        }

        async def check(key: tuple[str, str], revision: Revision) -> None:
            await self.check(spec.repositories[spec.units[key[0]].repository], revision)

        checked = dict(decisions)
        for key, found in (await _checked(check, running)).items():
            if isinstance(found, Setback):
                checked[key] = replace(checked[key], current=found)
        for key, found in (await _checked(check, coming)).items():
            if isinstance(found, Setback):
                waits = Waiting(
                    unit=key[0], reason=found.reason, message=found.message, tag=coming[key].ref,
                    commit=coming[key].commit,
                )  # fmt: skip
                checked[key] = replace(checked[key], next=None, waiting=waits)
        return checked

    @staticmethod
    def _policy(spec: Spec, key: tuple[str, str]) -> str:
        return spec.repositories[spec.units[key[0]].repository].verify.signatures

    async def branches(self, spec: Spec, found: Revisions) -> dict[tuple[str, str], Revision | Setback]:
        """By (repository, branch), in the same way."""

        async def check(key: tuple[str, str], revision: Revision) -> None:
            await self.check_branch(spec.repositories[key[0]], revision.ref, revision.commit)

        return await _checked(check, found)

    async def _signers(self, repository: Repository) -> Signers:
        mirror = self.repositories.mirror(self.settings.require_spec_repo())
        commit = await mirror.commit_of(f"refs/heads/{self.settings.spec_branch}")
        path = repository.verify.allowed_signers or ""
        return parse_signers(path, await mirror.read_file(commit, path, max_size=MAX_SIGNERS))


async def _checked(
    check: Callable[[tuple[str, str], Revision], Awaitable[None]], found: Revisions
) -> dict[tuple[str, str], Revision | Setback]:
    limiter = trio.CapacityLimiter(MAX_PARALLEL_CHECKS)
    checked = dict(found)

    async def one(key: tuple[str, str], revision: Revision) -> None:
        try:
            async with limiter:
                await check(key, revision)
        except TrueupError as error:
            checked[key] = Setback.of(error)

    async with trio.open_nursery() as nursery:
        for key, revision in found.items():
            if isinstance(revision, Revision):
                nursery.start_soon(one, key, revision)
    return checked
