"""A progress bar of windows, with rows and MB/s; silent where nobody looks."""

import os
import sys
import threading
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from langfuse_export.exported_table import ExportedTable
from langfuse_export.windows import Window


class WindowProgress:
    """Implements `langfuse_export.exporter.Progress` on a terminal."""

    def __init__(self, windows: int, description: str = "windows") -> None:
        """Args: how many windows there are, and the bar's label."""
        # While a step runs, Dagster has stderr go into a file; this stays with the terminal.
        self._terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w")
        console = Console(file=self._terminal)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TextColumn("{task.fields[rate]:.1f} MB/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(description, total=windows, rows=0, rate=0.0)
        self._lock = threading.Lock()
        self._rows = 0
        self._bytes = 0

    def bytes_read(self, count: int) -> None:
        """See `Progress`."""
        with self._lock:
            self._bytes += count
            elapsed = self._bar.tasks[0].elapsed or 1
            self._bar.update(self._task, rate=self._bytes / elapsed / 1e6)

    def table_exported(self, window: Window, exported: ExportedTable) -> None:
        """See `Progress`."""
        with self._lock:
            self._rows += exported.file.row_count
            self._bar.update(self._task, rows=self._rows)

    def window_finished(self, window: Window) -> None:
        """See `Progress`."""
        self._bar.advance(self._task)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._terminal.close()
