"""A session of a hub and an agent in memory: real links, routing and workers, and streams that may be cut."""

from typing import Any

import trio
import trio.testing

from agent.errors import TransferFailed
from agent.link import BULK_TIMING, CONTROL_BACKLOG, CONTROL_TIMING, Link
from agent.routing import Session, TaskChannel
from agent.status import Board
from agent.task import run_task
from agent.wire.channel import Channel
from agent.wire.connection import Connection, Phase, Role
from agent.wire.messages import PROTOCOL_VERSIONS, Hello, HelloAck, Task, TaskReport, Work
from agent.workers import Workers
from reconciler.sync.serving import TreeSource, serve_task
from reconciler.sync.watch import Watched
from tests.agent.syncing import Host

HELLO = Hello(node="n", protocols=PROTOCOL_VERSIONS, agent_version="1", signature=b"")
ACCEPTED = HelloAck(accepted=True, protocol=PROTOCOL_VERSIONS[0])


class Cut:
    """Ends all streams of a session once so many bytes have gone one way; counts what goes both ways."""

    def __init__(self, speaker: Role | None = None, after: int = 0) -> None:
        self._speaker = speaker
        self._after = after
        self.streams: list[trio.testing.MemorySendStream] = []
        self.sent = dict.fromkeys(Role, 0)
        self.done = False

    def take(self, speaker: Role, data: bytes) -> bytes:
        """What of the data still gets through."""
        if speaker is self._speaker:
            data = data[: max(self._after - self.sent[speaker], 0)]
        self.sent[speaker] += len(data)
        return data

    def check(self) -> None:
        if self._speaker is not None and self.sent[self._speaker] >= self._after:
            self.done = True
            for stream in self.streams:
                stream.close()


class CutStream(trio.abc.SendStream):
    """One way of one connection."""

    def __init__(self, inner: trio.testing.MemorySendStream, speaker: Role, cut: Cut) -> None:
        self._inner = inner
        self._speaker = speaker
        self._cut = cut
        cut.streams.append(inner)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._cut.done:
            raise trio.BrokenResourceError
        passed = self._cut.take(self._speaker, bytes(data))
        if passed:
            await self._inner.send_all(passed)
        self._cut.check()
        if self._cut.done:
            raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


def _links(cut: Cut, *, bulk: bool) -> dict[Role, Link]:
    """Both ends of a connection whose hello was said and accepted."""
    machines = {role: Connection(role, Phase.HELLO) for role in Role}
    hello = Hello(
        **{name: getattr(HELLO, name) for name in HELLO.__struct_fields__} | {"session": b"s" * bulk}
    )
    for speaker, message in ((Role.AGENT, hello), (Role.PRIMARY, ACCEPTED)):
        data = b"".join(map(bytes, machines[speaker].send(message)))
        list(machines[speaker.other].receive_data(data))
    links: dict[Role, Link] = {}
    ways = {role: trio.testing.memory_stream_one_way_pair() for role in Role}
    for role in Role:
        stream = trio.StapledStream(CutStream(ways[role][0], role, cut), ways[role.other][1])
        timing, backlog = (BULK_TIMING, 0) if bulk else (CONTROL_TIMING, CONTROL_BACKLOG)
        links[role] = Link(stream, machines[role], timing=timing, backlog=backlog)
    return links


async def session_task(
    source: TreeSource,
    host: Host,
    cut: Cut | None = None,
    **changes: Any,
) -> TaskReport | None:
    """One task over a session of its own; None if that was cut before the report came."""
    cut = cut or Cut()
    control, bulk = _links(cut, bulk=False), _links(cut, bulk=True)

    async def runner(task: Task, channel: Channel) -> TaskReport:
        return await run_task(task, channel, rules=host.rules, state_dir=host.state)

    async with trio.open_nursery() as nursery:
        workers = Workers(runner, Board(host.state, node="n", version="1"), nursery)

        def on_task(task: Work, channel: TaskChannel) -> None:
            workers.start(agent, task, channel)

        agent = Session(Role.AGENT, control[Role.AGENT], bulk[Role.AGENT], on_task=on_task)
        primary = Session(Role.PRIMARY, control[Role.PRIMARY], bulk[Role.PRIMARY])

        async def run_agent() -> None:
            try:
                await agent.run()
            finally:
                workers.abandon(agent)

        nursery.start_soon(run_agent)
        nursery.start_soon(primary.run)
        try:
            report = await _ask(primary, host.task(source.tree, **changes), source)
        except TransferFailed:
            report = None
        primary.end()
    return report


async def _ask(primary: Session, task: Task, source: TreeSource) -> TaskReport:
    channel = primary.open(task.id)
    try:
        await channel.send(task)
        return await serve_task(Watched(channel, "n"), source)  # as the hub does
    finally:
        primary.close(channel)
