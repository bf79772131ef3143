"""`trueup secrets audit`, and the commands' own entries in it: who asked for which secret, when."""

import difflib
import os
import pwd
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import structlog
import trio
from rich.text import Text

from reconciler.console import make_table, print_document, print_table
from reconciler.errors import JournalUnavailable, SettingsError
from reconciler.journal import Journal
from reconciler.journal_file import JOURNAL_FILE
from reconciler.secret_reads import ReadFor, SecretRead, reads_of
from reconciler.secrets.values import SecretValue
from reconciler.settings import Settings

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_NEAR = 3


def print_audit(settings: Settings, name: str | None, limit: int, output: str) -> None:
    """Print the newest reads of a source or a key, or of all. Raises SettingsError for an unknown name."""
    path = settings.state_dir / JOURNAL_FILE
    if not os.path.exists(path):  # noqa: PTH110 - False too where it may not be entered
        raise SettingsError(
            f"there is no journal at {path}", hint="give the primary's --state-dir, and run this as its owner"
        )
    with Journal(path) as journal:
        reads = journal.secret_reads.recent(name, limit)
        if name is not None and not reads:
            known = journal.secret_reads.names()
            near = difflib.get_close_matches(name, known, MAX_NEAR)
            hint = f"did you mean {' or '.join(near)}?" if near else "without a name all are listed"
            raise SettingsError(f"nobody got a secret source or key {name} so far", hint=hint)
    if output != "table":
        print_document({"version": 1, "reads": [asdict(read) for read in reads]}, output)
        return
    table = make_table("AT", "WHO", "FOR", "SOURCE", "ENVIRONMENT", "SERVED", "KEYS")
    for read in reads:
        table.add_row(
            read.at,
            Text(read.who),
            read.purpose,
            Text(read.source),
            Text(read.environment),
            read.served,
            Text(", ".join(read.keys)),
        )
    print_table(table)


def operator(settings: Settings) -> str:
    """Who runs this command, for the journal: the account, and behind sudo the one that called it."""
    uid = os.getuid()
    try:
        account = pwd.getpwuid(uid).pw_name
    except KeyError:
        account = str(uid)
    behind = settings.sudo_user if uid == 0 else None
    return f"user {behind} (as {account})" if behind and behind != account else f"user {account}"


async def record_reads(
    journal: Journal,
    settings: Settings,
    purpose: ReadFor,
    values: Iterable[Mapping[str, SecretValue]],
) -> None:
    """Note what a command got. If the journal cannot be written, that is warned of."""
    reads: Sequence[SecretRead] = [
        read for each in values for read in reads_of(operator(settings), purpose, each.values())
    ]
    try:
        await trio.to_thread.run_sync(journal.record_secret_reads, reads)
    except JournalUnavailable as error:
        log.warning(f"who asked for these secrets is not recorded: {error}")
