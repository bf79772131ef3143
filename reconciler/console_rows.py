"""What people read as it happens: rows below those that are there already, or one document a line."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import click
import yaml
from rich.table import Table
from rich.text import Text

from reconciler.console import COLOURS, json_text, make_table, print_table
from reconciler.logs import printable

T = TypeVar("T")


class GrowingTable:
    """A table that goes on: the columns of later rows are at least as wide as those of the first ones."""

    def __init__(self, *columns: str) -> None:
        self._columns = columns
        self._widths = [0] * len(columns)
        self._begun = False

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Print rows; the first ones with the head above them. Nothing in a cell acts on a terminal."""
        if not rows:
            return
        table = make_table(*self._columns)
        table.show_header = not self._begun
        for row in rows:
            cells = [printable(cell) for cell in row]
            table.add_row(*(Text(cell, COLOURS.get(cell, "")) for cell in cells))
        self._keep_widths(table)
        print_table(table)
        self._begun = True

    def _keep_widths(self, table: Table) -> None:
        if not self._begun:
            self._widths = [
                max(len(str(column.header)), *(len(str(cell)) for cell in column.cells))
                for column in table.columns
            ]
        # The last one has the longest texts, and nothing stands behind it.
        for column, width in zip(table.columns[:-1], self._widths[:-1], strict=True):
            column.min_width = width


class Printed:
    """What a verb prints of a list: a table, or a document; or, as it goes on, rows, or a document a line."""

    def __init__(self, output: str, *columns: str) -> None:
        self._output = output
        self._table = GrowingTable(*columns)

    def add(
        self, items: Iterable[T], row: Callable[[T], Sequence[str]], document: Callable[[T], object]
    ) -> None:
        """Items that came."""
        if self._output == "table":
            self._table.add([row(item) for item in items])
            return
        for item in items:
            if self._output == "json":
                click.echo(json_text(document(item)))
            else:
                click.echo(yaml.safe_dump(document(item), sort_keys=False, explicit_start=True), nl=False)


def say(line: str) -> None:
    """A word on how it is done, for a person, beside the answer."""
    click.echo(printable(line), err=True)
    sys.stderr.flush()
