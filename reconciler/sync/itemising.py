"""Takes from an agent what a sync would do at a target: what it says is bounded, and believed of it alone."""

from dataclasses import dataclass, field

from agent.errors import RemoteProtocolError
from agent.wire.channel import Channel
from agent.wire.forecast import DEEDS, MAX_ITEMS, MAX_TEXT, Forecast, Item, Sums
from agent.wire.messages import SyncStart, TaskReport
from reconciler.sync.serving import TreeSource
from reconciler.sync.telling import out_of_place, send_index

MAX_GUARDS = 100
MAX_AFTER = 1000


@dataclass
class Itemising:
    """The primary's part in one observing task that itemises.

    `serve` is a hub's `Serve`. Afterwards `sums` is what the agent foresees, with the `items` that it lists;
    None: it could not tell, as its report says, or it is too old to.
    """

    items: list[Item] = field(default_factory=list)
    sums: Sums | None = None

    async def serve(self, channel: Channel, source: TreeSource) -> TaskReport:
        """Send the index if it is asked for, and take forecasts, until the report comes.

        Raises TransferFailed once the session is gone, RemoteProtocolError for what is out of place.
        """
        room = MAX_TEXT
        sent = False
        while True:
            message, _ = await channel.receive()
            if isinstance(message, TaskReport):
                return message
            if isinstance(message, SyncStart) and not sent:
                sent = True
                await send_index(channel, source, message)
            elif isinstance(message, Forecast) and self.sums is None:
                self.items += message.items
                self.sums = message.sums
                room -= sum(len(item.path) for item in message.items)
                _check(message, self.items, room)
            else:
                raise out_of_place(message)


def _check(message: Forecast, items: list[Item], room: int) -> None:
    sums = message.sums
    if (
        len(items) > MAX_ITEMS
        or room < 0
        or not {item.deed for item in message.items} <= DEEDS.keys()
        or (
            sums is not None
            and (
                not sums.counts.keys() <= DEEDS.keys()
                or len(sums.guards) > MAX_GUARDS
                or len(sums.after) > MAX_AFTER
            )
        )
    ):
        raise RemoteProtocolError("the agent foresees what no agent would")
