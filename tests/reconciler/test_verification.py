"""The rule of a repository about tags that trueup makes itself, before anybody sees them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.desired_model import Revision
from reconciler.errors import SettingsError
from reconciler.git.process import GitOptions
from reconciler.git.signers import SignatureInvalid
from reconciler.git.tagging import make_tag
from reconciler.repositories import Repositories
from reconciler.settings import load_settings
from reconciler.spec.model import Repository, Verify
from reconciler.verification import Verification
from tests.gitrepo import GitRepo
from tests.signers import SshKey


class Place:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.app, self.spec = GitRepo.create(root / "app.git"), GitRepo.create(root / "spec.git")
        self.commit = self.app.commit({"a": "1"})
        self.key = SshKey.make(root / "key")
        self.spec.commit({"signers": self.key.allowed()})
        (root / "mirrors").mkdir()
        self.repositories = Repositories(root / "mirrors", GitOptions(allow_local=True))
        verify = Verify(signatures="tag", allowed_signers="signers")
        self.repository = Repository(name="app", url=self.app.url, verify=verify)

    async def check(self, *, configured: SshKey | None, signing: SshKey | None) -> None:
        """What becomes of a tag that is signed by one key, on a primary that has one configured."""
        environ = {"HOME": str(self.root), "TRUEUP_SPEC_REPO": self.spec.url}
        if configured is not None:
            environ["TRUEUP_SIGNING_KEY_FILE"] = str(configured.path)
        for url in (self.app.url, self.spec.url):
            await self.repositories.refresh(url)
        oid = await make_tag(
            self.repositories.mirror(self.app.url),
            "v1.0.0",
            self.commit,
            "A release",
            tagger="trueup <trueup@localhost>",
            now=datetime(2026, 3, 4, tzinfo=UTC),
            signing_key=signing.path if signing is not None else None,
        )
        verification = Verification(self.repositories, load_settings(environ))
        await verification.check(self.repository, Revision("v1.0.0", self.commit), oid=oid)


async def test_a_tag_of_our_own_is_accepted_before_it_is_pushed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await place.check(configured=place.key, signing=place.key)
    assert list(place.app.refs()) == ["refs/heads/main"]


async def test_without_a_key_it_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"app\.verify\.signatures: tag .* no key to sign") as said:
        await Place(tmp_path).check(configured=None, signing=None)
    assert "TRUEUP_SIGNING_KEY_FILE" in str(said.value)


async def test_a_key_that_nobody_allowed_signs_in_vain(tmp_path: Path) -> None:
    place, other = Place(tmp_path), SshKey.make(tmp_path / "other")
    with pytest.raises(SignatureInvalid, match="which is not in signers"):
        await place.check(configured=other, signing=other)
