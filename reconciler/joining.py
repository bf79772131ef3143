"""The command with which a host joins: what an operator carries from the primary to it. Pure."""

from collections.abc import Sequence

from agent.address import Address
from agent.node_token import NodeToken


def addresses(primaries: Sequence[str]) -> list[str]:
    """As a join command takes them; SettingsError for what is no address."""
    return [str(Address.parse(primary)) for primary in primaries]


def join_command(node: str, token: NodeToken, fingerprint: str, primaries: Sequence[str]) -> str:
    return " ".join(
        [
            "trueup-agent join",
            *(f"--primary {address}" for address in primaries),
            f"--node {node}",
            f"--token {token.to_text()}",
            f"--pin {fingerprint}",
        ]
    )
