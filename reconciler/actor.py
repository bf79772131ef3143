"""Who decides: the name and address that the operator's git puts on commits."""

import getpass
import re
from typing import Final

DEADLINE: Final = 10
"""Seconds that git may take to say it."""

ACTOR: Final = "x-trueup-actor"
"""The header in which our own commands say for whom they ask: `Name <address>`, as git has it,
percent-encoded."""

IDENTITY: Final = re.compile(r"([^<>\n\0]+) <([^<>\n\0]+)>.*")
"""`Name <address>`, and what git writes after it."""


def person(name: str) -> str:
    """`Name <address>` for somebody who is known by that, or by a plain name."""
    if (found := IDENTITY.fullmatch(name)) is not None:
        return f"{found[1]} <{found[2]}>"
    clean = " ".join(re.sub(r"[^\w .@+-]", " ", name).split())[:100] or "somebody"
    return f"{clean} <{clean.replace(' ', '.')}@localhost>"


def whoami() -> str:
    """`Name <email>` as commits made here carry it; the account where git knows nobody."""
    import git

    try:
        said = str(git.Git().var("GIT_AUTHOR_IDENT", kill_after_timeout=DEADLINE))
    except git.CommandError:
        said = ""
    found = IDENTITY.fullmatch(said)
    if found is None:
        account = getpass.getuser()
        return f"{account} <{account}@localhost>"
    return f"{found[1]} <{found[2]}>"
