"""What `trueup token list` shows."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import click
from rich.text import Text

from reconciler.api_tokens import ApiToken
from reconciler.console import make_table, print_table


def rows_of(tokens: Iterable[ApiToken], now: datetime) -> list[dict[str, object]]:
    """One a token. The first digits of a digest tell which one a line is, and open nothing."""
    return [
        {
            "name": each.name,
            "role": each.role,
            "expires": None if each.expires is None else f"{each.expires:%Y-%m-%dT%H:%M:%SZ}",
            "expired": each.has_expired(now),
            "digest": each.digest.hex()[:16],
        }
        for each in tokens
    ]


def print_tokens(rows: Sequence[Mapping[str, object]]) -> None:
    if not rows:
        click.echo("no tokens yet; `trueup token new` makes one")
        return
    table = make_table("NAME", "ROLE", "EXPIRES", "DIGEST")
    for row in rows:
        expires = "never" if row["expires"] is None else str(row["expires"])
        ended = " (over)" if row["expired"] else ""
        table.add_row(Text(str(row["name"])), str(row["role"]), expires + ended, f"{row['digest']}…")
    print_table(table)
