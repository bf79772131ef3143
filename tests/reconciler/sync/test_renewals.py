"""Another certificate for an agent, whoever is killed on the way: the old one or the new one is accepted."""

import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import tls
from agent.memory import Memory
from agent.node_token import NodeToken
from agent.wire.channel import Channel
from agent.wire.messages import HelloAck, Task, TaskReport
from agent.wire.renewal import CertificateOffer, RenewCertificate
from reconciler.sync.enrolment import Enrolment, judge_offer
from reconciler.sync.hub import AgentTooOld, AgentUnreachable
from reconciler.sync.renewals import RenewalRefused
from tests.connected import (
    DEADLINE,
    Node,
    Setup,
    connected,
    make_node,
    make_task,
    running_hub,
    succeed,
    until,
)

KEY = Ed25519PrivateKey.generate()


@dataclass
class Record:
    """What the hub has had recorded."""

    steps: list[tuple[str, bytes, bool]] = field(default_factory=list)
    fails_at: str = ""
    failed: trio.Event = field(default_factory=trio.Event)

    async def __call__(self, node: str, certificate: bytes, used: bool) -> None:
        if self.fails_at == ("use" if used else "offer"):
            self.fails_at = ""
            self.failed.set()
            raise OSError("git is away")
        self.steps.append((node, certificate, used))


def enrolment_of(setup: Setup, node: str = "web-1") -> Enrolment:
    return setup.hub._reception.roster.by_node[node]


async def until_used(setup: Setup, before: bytes) -> None:
    await until(setup, lambda: enrolment_of(setup).accepted()[:1] != (before,))


async def test_an_agent_takes_another_certificate_and_the_old_one_ends(tmp_path: Path) -> None:
    node, record = make_node(tmp_path), Record()
    before = node.certificate
    shutil.copytree(node.memory.tls_dir, tmp_path / "old")
    async with running_hub(tmp_path, [node.enrolment(paired=True)], on_renewed=record) as setup:
        node.memory.remember_server(setup.hub.fingerprint)
        async with connected(setup, node):
            assert await setup.hub.renew_agent("web-1") is True
            # It works with it, as soon as it has put it in the place of the other.
            assert (await setup.hub.run_task("web-1", make_task("t1"), None)).state == "SUCCESS"
            after = node.certificate
            assert after != before
            assert record.steps == [("web-1", after, False), ("web-1", after, True)]
            assert enrolment_of(setup).accepted() == (after,)
            assert sorted(path.name for path in node.memory.tls_dir.iterdir()) == [
                "client.crt",
                "client.key",
                "server.fp",
            ]
            assert await setup.hub.renew_agent("web-1") is True
            assert (await setup.hub.run_task("web-1", make_task("t2"), None)).state == "SUCCESS"
            assert node.certificate not in (before, after)
            with pytest.raises(Exception, match=r"certificate|broke"):
                await setup.hello(node, identity=tmp_path / "old")


async def test_an_agent_at_work_changes_over_between_tasks(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    begun, go_on = trio.Event(), trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        begun.set()
        await go_on.wait()
        return await succeed(task, channel)

    async with running_hub(tmp_path, [node.enrolment(paired=True)]) as setup:
        node.memory.remember_server(setup.hub.fingerprint)
        before, reports = node.certificate, []

        async def work() -> None:
            reports.append(await setup.hub.run_task("web-1", make_task("t1"), None))

        async with connected(setup, node, runner), trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await begun.wait()
            nursery.start_soon(setup.hub.renew_agent, "web-1")
            await until(setup, lambda: len(enrolment_of(setup).accepted()) == 2)
            go_on.set()
            await until_used(setup, before)
        assert [report.state for report in reports] == ["SUCCESS"]


async def test_killed_anywhere_the_agent_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots of the TLS directory before each change to it are what a killed agent leaves."""
    node, left = make_node(tmp_path), list[tuple[Path, Enrolment]]()
    replace_file, unlink = os.replace, os.unlink
    rights: list[Enrolment] = []

    async with running_hub(tmp_path, [node.enrolment(paired=True)], key=KEY) as setup:
        node.memory.remember_server(setup.hub.fingerprint)
        tls_dir = node.memory.tls_dir

        def keep(path: object) -> None:
            if Path(str(path)).parent == tls_dir:
                copy = tmp_path / f"killed-{len(left)}"
                shutil.copytree(tls_dir, copy / "tls")
                left.append((copy, enrolment_of(setup)))

        def replacing(source: str, target: str, **more: int) -> None:
            keep(source)
            replace_file(source, target, **more)

        def unlinking(path: str, **more: int) -> None:
            keep(path)
            unlink(path, **more)

        async with connected(setup, node):
            monkeypatch.setattr(os, "replace", replacing)
            monkeypatch.setattr(os, "unlink", unlinking)
            assert await setup.hub.renew_agent("web-1")
            monkeypatch.undo()
        rights = [known for _, known in left]
        final = enrolment_of(setup)
    assert len(left) >= 6
    assert {len(known.accepted()) for known in rights} == {1, 2}

    for number, (copy, known) in enumerate(left):
        # What the primary had recorded by then; before, where its own kill lost it; or since, if it was used.
        shown = (copy / "tls" / "next.accepted").exists()
        for rest in {known, rights[max(0, number - 1)], final if shown else known}:
            state = copy.with_name(f"{copy.name}-{len(rest.accepted())}-{rest == final}")
            shutil.copytree(copy, state)
            again = Node("web-1", node.token, Memory(state, state / "tls"))
            async with (
                running_hub(tmp_path / f"{state.name}-hub", [rest], key=KEY) as setup,
                connected(setup, again),
            ):
                # What was begun is brought to its end, or can be begun anew.
                before = rest.accepted()[0]
                if rest.next_der is not None:
                    await until_used(setup, before)
                else:
                    assert await setup.hub.renew_agent("web-1")
                assert (await setup.hub.run_task("web-1", make_task("t1"), None)).state == "SUCCESS"
                assert enrolment_of(setup).accepted() == (again.certificate,) != (before,)


@pytest.mark.parametrize("step", ["offer", "use"])
async def test_what_cannot_be_recorded_is_recorded_later(tmp_path: Path, step: str) -> None:
    node, record = make_node(tmp_path), Record(fails_at=step)
    async with running_hub(tmp_path, [node.enrolment(paired=True)], on_renewed=record) as setup:
        node.memory.remember_server(setup.hub.fingerprint)
        before = node.certificate
        async with connected(setup, node):
            if step == "offer":
                with pytest.raises(RenewalRefused, match="try again later"):
                    await setup.hub.renew_agent("web-1")
                assert enrolment_of(setup).accepted() == (before,)
                assert await setup.hub.renew_agent("web-1")
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(setup.hub.renew_agent, "web-1")
                await record.failed.wait()
                nursery.cancel_scope.cancel()
            assert len(enrolment_of(setup).accepted()) == 2, "until it is recorded which one serves"
        async with connected(setup, node):
            await until_used(setup, before)
            assert (await setup.hub.run_task("web-1", make_task("t1"), None)).state == "SUCCESS"
            assert enrolment_of(setup).accepted() == (node.certificate,)


async def test_who_is_asked_for_no_certificate_gets_none_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node, record = make_node(tmp_path), Record()
    async with running_hub(tmp_path, [node.enrolment(paired=True)], on_renewed=record) as setup:
        control, answer = await setup.hello(node)
        assert isinstance(answer, HelloAck)
        await setup.hello(node, session=answer.session)
        await setup.hub.wait_connected(["web-1"], DEADLINE)
        der = tls.to_der(tls.make_certificate(Ed25519PrivateKey.generate(), tls.agent_subject("web-1")))
        statement = tls.renewal_statement(
            setup.hub.fingerprint, tls.spki_fingerprint(node.memory.identity("web-1")), "web-1", der
        )
        offer = CertificateOffer(certificate=der, signature=node.token.sign(statement))
        await control.write(offer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setup.hub.renew_agent, "web-1")
            assert isinstance(await control.read(), RenewCertificate)
            assert record.steps == []
            # One that was asked for is; the answer comes once it is recorded.
            await control.write(offer)
            await control.read()
            assert record.steps == [("web-1", der, False)]
            nursery.cancel_scope.cancel()
    assert "nobody asked for one" in caplog.text


async def test_who_cannot_renew_hears_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(tmp_path)
    pinned = replace(node.enrolment(paired=True), pin=tls.spki_fingerprint(node.memory.identity("web-1")))
    async with running_hub(tmp_path, [pinned]) as setup:
        node.memory.remember_server(setup.hub.fingerprint)
        with pytest.raises(AgentUnreachable):
            await setup.hub.renew_agent("web-1")
        async with connected(setup, node):
            with pytest.raises(RenewalRefused, match="set nodes"):
                await setup.hub.renew_agent("web-1")
            assert enrolment_of(setup).accepted() == (node.certificate,)
        monkeypatch.setattr("agent.session.PROTOCOL_VERSIONS", (3, 2))
        async with connected(setup, node):
            with pytest.raises(AgentTooOld, match="too old for another certificate"):
                await setup.hub.renew_agent("web-1")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("nothing", None),
        ("token", "TokenRefused"),
        ("primary", "TokenRefused"),
        ("another certificate", "TokenRefused"),
        ("another node's", "CertificateRefused"),
        ("an authority", "CertificateRefused"),
        ("a session of before", "CertificateRefused"),
    ],
)
def test_offers_are_judged(wrong: str, reason: str | None) -> None:
    token, key = NodeToken.generate(), Ed25519PrivateKey.generate()
    shown = tls.to_der(tls.make_certificate(Ed25519PrivateKey.generate(), tls.agent_subject("web-1")))
    subject = "db-1" if wrong == "another node's" else "web-1"
    der = tls.to_der(tls.make_certificate(key, tls.agent_subject(subject)))
    if wrong == "an authority":
        der = tls.to_der(tls.make_certificate(key, tls.PRIMARY_SUBJECT))
    agent_fp = tls.spki_fingerprint(tls.load_certificate(shown))
    signed = shown if wrong == "another certificate" else der
    statement = tls.renewal_statement("f" * 64, agent_fp, "web-1", signed)
    signer = NodeToken.generate() if wrong == "token" else token
    offer = CertificateOffer(certificate=der, signature=signer.sign(statement))
    enrolment = Enrolment(
        "web-1", token.public_text, certificate_der=der if wrong == "a session of before" else shown
    )
    server = "e" * 64 if wrong == "primary" else "f" * 64
    refusal = judge_offer(offer, enrolment, shown, server_fp=server)
    assert (refusal and refusal.reason) == reason
