"""Another certificate for an agent, over the session that the one before has opened.

The primary asks for it, the agent makes it and offers it, signed by the node's token, and the primary says
once it is recorded. Then the agent comes again and shows it; see `certificates.py` for what is on the disk.
"""

import logging

import trio

from agent import tls
from agent.certificates import Certificates
from agent.errors import SettingsError
from agent.link import LinkLost
from agent.node_token import NodeToken
from agent.routing import Session
from agent.wire.renewal import CertificateAnswer, CertificateOffer, RenewCertificate
from agent.workers import Workers

_log = logging.getLogger("trueup.agent")

MAX_WAITING = 8
"""Messages of a primary about certificates that wait; more are dropped."""


class Renewal:
    """The agent's part in it, for one session with the primary of this fingerprint."""

    def __init__(
        self, certificates: Certificates, node: str, token: NodeToken, server_fp: str, shown_fp: str
    ) -> None:
        self._certificates = certificates
        self._node = node
        self._token = token
        self._server_fp = server_fp
        self._shown_fp = shown_fp
        self._send, self._take = trio.open_memory_channel[RenewCertificate | CertificateAnswer](MAX_WAITING)

    def take(self, notice: RenewCertificate | CertificateAnswer) -> None:
        try:
            self._send.send_nowait(notice)
        except trio.WouldBlock:
            _log.warning("the primary says more about certificates than is heeded")

    async def run(self, session: Session, workers: Workers) -> None:
        """As long as the session stands; ends it, between tasks, once another certificate is to be shown."""
        async for notice in self._take:
            try:
                if isinstance(notice, RenewCertificate):
                    await self._offer(session)
                elif await self._is_accepted(notice):
                    await workers.wait_idle()
                    session.end(LinkLost("the agent comes again with its new certificate"))
            except SettingsError as error:
                _log.warning("the certificate cannot be renewed now: %s", error)

    async def _offer(self, session: Session) -> None:
        certificate = await trio.to_thread.run_sync(self._certificates.offer)
        der = tls.to_der(certificate)
        statement = tls.renewal_statement(self._server_fp, self._shown_fp, self._node, der)
        session.control.offer(CertificateOffer(certificate=der, signature=self._token.sign(statement)))

    async def _is_accepted(self, answer: CertificateAnswer) -> bool:
        certificate = await trio.to_thread.run_sync(self._certificates.offer)
        if tls.spki_fingerprint(certificate) != answer.fingerprint:
            return False  # of an offer that is not the newest
        if not answer.accepted:
            _log.warning("the new certificate was refused (%s): %s", answer.reason, answer.message)
            return False
        await trio.to_thread.run_sync(self._certificates.accepted, certificate)
        return True
