"""One host as its operator sees it: agent.toml, the state directory, the join command."""

from pathlib import Path

from agent.node_token import NodeToken
from reconciler.sync.enrolment import Enrolment
from tests.connected import Setup


class Host:
    """The files and the join command of one host."""

    def __init__(self, tmp_path: Path) -> None:
        self.token = NodeToken.generate()
        self.config = tmp_path / "etc" / "agent.toml"
        self.state = tmp_path / "state"
        self.root = tmp_path / "srv"
        self.root.mkdir()

    @property
    def enrolment(self) -> Enrolment:
        return Enrolment("web-1", self.token.public_text)

    def join(self, setup: Setup, *more: str, token: NodeToken | None = None) -> list[str]:
        said = {
            "--primary": str(setup.address),
            "--node": "web-1",
            "--token": (token or self.token).to_text(),
            "--config": str(self.config),
            "--state-dir": str(self.state),
        }
        return ["join", *(part for pair in said.items() for part in pair), *more]
