"""What an installation leaves in the spec, the status branch and the journal, with nothing done on a host."""

from pathlib import Path

import pytest
import trio

from agent.node_token import NodeToken
from reconciler.install.in_spec import InSpec, Standing, look
from reconciler.install.node import Request, _Installation
from reconciler.install.plan import Found, Wanted
from reconciler.install.ssh import SshHost
from reconciler.journal import Journal
from reconciler.journal_file import JOURNAL_FILE
from reconciler.nodes import put_back_pairing
from reconciler.settings import Settings
from reconciler.spec.load import SPEC_FILE
from reconciler.spec_edit import EditRefused
from reconciler.status.documents import NodeStatus
from tests.gitrepo import GitRepo
from tests.operators import settings_here

TOKEN = NodeToken.generate()
PAIRED = NodeStatus(id="nodes/web-1", certificate="-----BEGIN CERTIFICATE-----\nx\n", fingerprint="ab" * 32)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    remote = GitRepo.create(tmp_path / "spec.git")
    remote.commit(
        {SPEC_FILE: f"version: 1\nnodes:\n  web-1: {{token_key: '{TOKEN.public_text}'}}\n"},
    )
    return settings_here(tmp_path, remote, monkeypatch)


async def test_a_host_that_joined_with_a_given_token_is_forgotten_with_the_rest(settings: Settings) -> None:
    before = await look(settings, "web-1")
    assert before == Standing(TOKEN.public_text, None)
    in_spec = InSpec(settings, "web-1", {}, before)
    assert await in_spec.give(TOKEN) == (TOKEN, "the token that was given is the spec's")
    await put_back_pairing(settings, "web-1", PAIRED)  # as a primary records it when the host joins
    await in_spec.take_back()
    assert await look(settings, "web-1") == before


async def test_a_host_stays_paired_where_no_token_could_be_given(settings: Settings) -> None:
    await put_back_pairing(settings, "web-1", PAIRED)
    pairing = (await look(settings, "web-1")).pairing
    in_spec = InSpec(settings, "web-1", {}, Standing(None, pairing))  # somebody has added it since
    with pytest.raises(EditRefused, match="the spec has a node web-1 already"):
        await in_spec.give(None)
    await in_spec.take_back()
    standing = await look(settings, "web-1")
    assert standing.pairing is not None and standing.pairing.fingerprint == PAIRED.fingerprint


async def test_the_end_of_what_is_done_is_recorded_whoever_gives_up_then(settings: Settings) -> None:
    wanted = Wanted(node="web-1", primaries=("p.example:9001",), pin="ab" * 32)
    request = Request(wanted=wanted, host=SshHost("root@web-1.example", {}), here="p.example:9001")
    in_spec = InSpec(settings, "web-1", {}, Standing(None, None))
    installation = _Installation(settings, request, in_spec, Found(uid=0), "01234567", ())
    said: list[str] = []
    with trio.CancelScope() as scope:

        def tell(line: str) -> None:
            said.append(line)
            scope.cancel()

        await installation.carry_out(tell)
    assert scope.cancel_called
    with Journal(settings.state_dir / JOURNAL_FILE, read_only=True) as journal:
        [task] = journal.tasks()
    assert (task.resource, task.state) == ("nodes/web-1", "SUCCESS")
    assert said == ["the agent of web-1 runs on root@web-1.example", f"its log: `trueup logs {task.id}`"]
