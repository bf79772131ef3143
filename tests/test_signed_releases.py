"""A repository that asks for signatures: nothing of it runs that is not signed by somebody who may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.node_token import NodeToken
from tests.bad_world import API, BOTH, Case, make_case
from tests.signers import SshKey, commit_content, put_tag, sign_commit, tag_content

SIGNERS = "keys/allowed_signers"


@dataclass
class Signed:
    """A case whose application asks for signatures, and the one key that may make them."""

    case: Case
    alice: SshKey
    bob: SshKey

    def allow(self, *keys: SshKey) -> None:
        lines = "".join(key.allowed() for key in keys)
        self.case.world.spec.commit({SIGNERS: lines or None})

    def sign_tag(self, name: str, *, key: SshKey, commit: str | None = None) -> None:
        app = self.case.world.app
        commit = commit or app.resolve("refs/heads/main")
        assert commit
        content = tag_content(name, commit)
        put_tag(app, content + key.sign(content), name=name)

    def sign_head(self, *, key: SshKey) -> str:
        app = self.case.world.app
        commit = app.resolve("refs/heads/main")
        assert commit
        return sign_commit(app, commit, key.sign(commit_content(app, commit)))

    def verified(self, id: str = API) -> tuple[str, str]:
        conditions = self.case.status(id)["conditions"]
        found = next(each for each in conditions if each["type"] == "SourceVerified")
        return found["status"], found["message"]


@asynccontextmanager
async def signed_case(root: Path, policy: str) -> AsyncIterator[Signed]:
    async with make_case(root) as case:
        verify = f"verify: {{signatures: {policy}, allowed_signers: {SIGNERS}}}"
        case.head = case.head.replace("branch: main}", f"branch: main, {verify}}}")
        case.commit(case.good)
        signed = Signed(case, SshKey.make(root / "alice"), SshKey.make(root / "bob"))
        signed.allow(signed.alice)
        yield signed


async def test_only_signed_tags_are_deployed(tmp_path: Path) -> None:
    async with signed_case(tmp_path, "tag") as signed:
        case = signed.case
        await case.reconcile(expect=4)
        status, reason, message = case.ready(API)
        assert (status, reason) == ("False", "SignatureInvalid")
        assert "the tag v1.0.0 is not accepted: it is not signed" in message
        assert signed.verified() == ("False", message)
        assert case.ready("environments/staging")[:2] == ("False", "SignatureInvalid")
        assert case.deployed() == {}

        signed.sign_tag("v1.0.0", key=signed.bob)
        await case.reconcile(expect=4)
        assert case.deployed() == {}

        signed.sign_tag("v1.0.0", key=signed.alice)
        await case.reconcile(expect=0)
        assert case.deployed() == BOTH
        assert signed.verified() == ("True", "v1.0.0 is signed by an allowed signer")
        again = await case.reconcile(expect=0)
        assert again.document["statusCommit"] is None


async def test_a_signed_tag_under_a_higher_name_is_not_deployed(tmp_path: Path) -> None:
    async with signed_case(tmp_path, "tag") as signed:
        case = signed.case
        signed.sign_tag("v1.0.0", key=signed.alice)
        await case.reconcile(expect=0)
        app = case.world.app
        oid = app.resolve("refs/tags/v1.0.0")
        assert oid
        app.git("update-ref", "refs/tags/v9.0.0", oid)
        await case.reconcile(expect=4)
        assert "v9.0.0" in case.ready("environments/staging")[2]
        assert case.deployed() == BOTH


async def test_a_key_that_is_withdrawn_or_a_file_that_is_gone_allows_nobody(tmp_path: Path) -> None:
    async with signed_case(tmp_path, "tag") as signed:
        case = signed.case
        signed.sign_tag("v1.0.0", key=signed.alice)
        signed.allow(signed.bob)
        await case.reconcile(expect=4)
        assert "is not in keys/allowed_signers" in case.ready(API)[2]
        signed.allow()
        await case.reconcile(expect=4)
        assert "keys/allowed_signers is not in the spec repository" in case.ready(API)[2]
        assert case.deployed() == {}
        signed.allow(signed.alice)
        await case.reconcile(expect=0)
        assert case.deployed() == BOTH


async def test_only_signed_commits_are_deployed(tmp_path: Path) -> None:
    async with signed_case(tmp_path, "commit") as signed:
        case = signed.case
        signed.sign_tag("v1.0.0", key=signed.alice)  # which says nothing of the commit
        await case.reconcile(expect=4)
        assert "is not accepted: it is not signed" in case.ready(API)[2]
        commit = signed.sign_head(key=signed.alice)
        case.world.app.tag("v1.0.0", commit)
        await case.reconcile(expect=0)
        assert case.deployed() == BOTH
        assert signed.verified() == ("True", f"{commit} is signed by an allowed signer")


async def test_what_follows_a_branch_needs_signed_commits(tmp_path: Path) -> None:
    project = """\
nodes:
  web-1: {token_key: "TOKEN"}
projects:
  site: {repository: app, branch: main, path: site, sync: {nodes: [{node_id: web-1, target_path: /srv/a}]}}
""".replace("TOKEN", NodeToken.generate().public_text)
    async with signed_case(tmp_path, "tag") as signed:
        case = signed.case
        signed.sign_tag("v1.0.0", key=signed.alice)
        case.commit(case.good + project)
        ran = await case.reconcile("--wait-agents", "0s", expect=4)
        assert "signatures: tag accepts signed tags alone, and this reads the branch main" in ran.stderr
        assert case.deployed() == BOTH

        case.head = case.head.replace("signatures: tag", "signatures: commit")
        case.commit(case.good + project)
        ran = await case.reconcile("--wait-agents", "0s", expect=4)
        assert "it is not signed" in ran.stderr
        signed.sign_head(key=signed.alice)
        case.world.app.tag("v1.0.1", "refs/heads/main")
        await case.reconcile("--wait-agents", "0s", expect=4)
        assert case.ready("projects/branch/site/web-1/srv+a")[1] == "AwaitingPairing"


async def test_the_tags_that_a_pass_cuts_are_signed_where_that_is_asked_for(tmp_path: Path) -> None:
    async with signed_case(tmp_path, "tag") as signed:
        case, app = signed.case, signed.case.world.app
        signed.sign_tag("v1.0.0", key=signed.alice)
        await case.reconcile(expect=0)
        case.head = case.head.replace(", cut: external", "")
        case.commit(case.good)
        app.commit({"api/compose.yaml": "two\n"})
        before = app.refs()
        for key, reason, why in (
            (None, "SettingsInvalid", "set TRUEUP_SIGNING_KEY_FILE"),
            (signed.bob, "SignatureInvalid", "is not in keys/allowed_signers"),
        ):
            signer = {"TRUEUP_SIGNING_KEY_FILE": str(key.path)} if key is not None else {}
            ran = await case.reconcile(expect=4, **signer)
            outcome = ran.document["outcomes"]["releases/staging/app"]
            assert (outcome["state"], outcome["reason"]) == ("failed", reason)
            assert why in outcome["message"]
            assert (app.refs(), case.deployed()) == (before, BOTH)
            assert case.status("environments/staging")["units"]["app"]["release"]["tag"] == "v1.0.0"

        await case.reconcile(expect=0, TRUEUP_SIGNING_KEY_FILE=str(signed.alice.path))
        assert "-----BEGIN SSH SIGNATURE-----" in app.git("cat-file", "tag", "v1.0.1")
        assert case.deployed() == BOTH | {"api": ["v1.0.0", "v1.0.1"]}
        assert signed.verified() == ("True", "v1.0.1 is signed by an allowed signer")
        # What was cut needs no key any more.
        again = await case.reconcile(expect=0)
        assert (again.document["steps"], again.document["statusCommit"]) == ([], None)
