"""The terminal: results on stdout, everything else on stderr, colours only where somebody looks."""

import sys
from typing import NoReturn

from rich.console import Console
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_WIDEST = 10_000


def print_whole(table: Table) -> None:
    """Print a table on stdout as wide as its cells are, also where the terminal is narrower."""
    Console(highlight=False, width=max(width_of(table), out.width)).print(table)


def width_of(table: Table) -> int:
    """How wide a table is with whole cells."""
    return out.measure(table, options=out.options.update(width=_WIDEST)).maximum


def fail(message: str, code: int) -> NoReturn:
    """Print one line on stderr and exit.

    Args:
        message: what is wrong and what to do.
        code: 1 when the work failed, 2 when a setting, the catalog or an argument is wrong.
    """
    err.print(f"langfuse-worker: {message}", style="red", markup=False, soft_wrap=True)
    sys.exit(code)
