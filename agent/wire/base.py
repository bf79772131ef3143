"""What all messages on the wire have in common."""

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all messages; unknown fields are ignored so that newer peers can add some."""
