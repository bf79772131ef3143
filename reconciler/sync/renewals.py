"""The primary's part in another certificate for an agent: asked for, judged, recorded, used.

Recorded on the status branch before the agent hears so, and accepted beside the one before until it was
used. So whichever of the two ends is killed in between, the agent has one that is accepted.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import trio

from agent import tls
from agent.errors import TrueupError
from agent.routing import Session
from agent.wire.messages import RENEWALS_SINCE
from agent.wire.renewal import CertificateAnswer, CertificateOffer, RenewCertificate
from reconciler.sync.enrolment import Refusal, judge_offer
from reconciler.sync.reception import Base, Reception

OnRenewed = Callable[[str, bytes, bool], Awaitable[None]]
"""(node, the new certificate in DER, whether it was used) -> recorded for good."""

Spawn = Callable[..., None]

DEADLINE: Final = 60.0
"""Seconds that a renewal is waited for; one that takes longer ends without anybody waiting."""

_log = logging.getLogger("trueup.sync")


class RenewalRefused(TrueupError):
    """The agent's new certificate is not accepted."""

    reason = "ConnectionRefused"


class Renewals:
    def __init__(self, reception: Reception, on_renewed: OnRenewed, spawn: Spawn) -> None:
        self._reception = reception
        self._on_renewed = on_renewed
        self._spawn = spawn
        self._asked: set[str] = set()
        """Nodes whose agents owe an offer; any other offer is dropped."""
        self._refusals: dict[str, Refusal] = {}
        self._locks: dict[str, trio.Lock] = {}

    async def renew(self, node: str, session: Session) -> bool:
        """Have an agent make another certificate. Whether it is in use; otherwise it is recorded, or will be,
        and used once the agent has ended its tasks. Raises RenewalRefused."""
        before = self._reception.bases[node].shown
        self._refusals.pop(node, None)
        self.ask(node, session)
        with trio.move_on_after(DEADLINE):
            while not self._is_used(node, before):
                if (refusal := self._refusals.pop(node, None)) is not None:
                    raise RenewalRefused(f"the new certificate of {node} was refused: {refusal.message}")
                await self._reception.wait_change()
            return True
        return False

    def _is_used(self, node: str, before: bytes) -> bool:
        base, enrolment = self._reception.bases.get(node), self._reception.roster.by_node.get(node)
        return (
            base is not None
            and enrolment is not None
            and base.shown != before
            and enrolment.accepted() == (base.shown,)
        )

    def ask(self, node: str, session: Session) -> None:
        if session.control.offer(RenewCertificate()):
            self._asked.add(node)

    def connected(self, node: str, session: Session, base: Base) -> None:
        """An agent has come: go on with what is under way for it."""
        enrolment = self._reception.roster.by_node.get(node)
        if enrolment is None or enrolment.next_der is None:
            return
        if base.shown == enrolment.next_der:
            self._spawn(self._used, node, base.shown)
        elif session.protocol >= RENEWALS_SINCE:
            self.ask(node, session)

    def take(self, node: str, session: Session, base: Base, offer: CertificateOffer) -> None:
        """An agent offers a certificate."""
        if node not in self._asked:
            _log.warning("node %s offers a certificate, and nobody asked for one", node)
            return
        self._asked.discard(node)
        self._spawn(self._answer, node, session, base, offer)

    async def _answer(self, node: str, session: Session, base: Base, offer: CertificateOffer) -> None:
        async with self._locks.setdefault(node, trio.Lock()):
            refusal = self._judge(node, base, offer)
            if refusal is None:
                refusal = await self._record(node, base, offer.certificate)
        try:
            fingerprint = tls.spki_fingerprint(tls.load_certificate(offer.certificate))
        except TrueupError:
            fingerprint = ""
        refused = refusal or Refusal("", "")
        session.control.offer(
            CertificateAnswer(
                fingerprint=fingerprint,
                accepted=refusal is None,
                reason=refused.reason,
                message=refused.message,
            )
        )
        if refusal is not None:
            _log.warning("refused a new certificate of node %s: %s", node, refusal.message)
            self._refusals[node] = refusal
        self._reception.changed()

    def _judge(self, node: str, base: Base, offer: CertificateOffer) -> Refusal | None:
        enrolment = self._reception.roster.by_node.get(node)
        return judge_offer(offer, enrolment, base.shown, server_fp=self._reception.server_fp)

    async def _record(self, node: str, base: Base, certificate: bytes) -> Refusal | None:
        enrolment = self._reception.roster.by_node[node]
        if certificate in enrolment.accepted():
            return None
        try:
            await self._on_renewed(node, certificate, False)
        except Exception as error:
            _log.error("the new certificate of node %s could not be recorded: %s", node, error)
            return Refusal("NotRecorded", "the primary could not record the certificate: try again later")
        if not base.holds(self._reception.roster):
            return Refusal("CertificateRefused", "the node was removed or changed")
        await self._change(node, self._reception.roster.by_node[node].certificate_der, certificate)
        return None

    async def _used(self, node: str, certificate: bytes) -> None:
        """The next certificate has opened a session: the one before counts no more."""
        async with self._locks.setdefault(node, trio.Lock()):
            enrolment = self._reception.roster.by_node.get(node)
            if enrolment is None or enrolment.next_der != certificate:
                return
            try:
                await self._on_renewed(node, certificate, True)
            except Exception as error:
                # Both go on to be accepted, and the next session sees to it.
                _log.error("that node %s has a new certificate could not be recorded: %s", node, error)
                return
            enrolment = self._reception.roster.by_node.get(node)
            if enrolment is not None and enrolment.next_der == certificate:
                await self._change(node, certificate, None)
            _log.info("node %s has a new certificate", node)
            self._reception.changed()

    async def _change(self, node: str, serving: bytes | None, following: bytes | None) -> None:
        by_node = self._reception.roster.by_node
        changed = replace(by_node[node], certificate_der=serving, next_der=following)
        await self._reception.update([*(each for each in by_node.values() if each.node != node), changed])
