"""Who hears of runs as they go, such as what reports them elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from langfuse_export.history import History
from langfuse_export.project import ProjectExport
from langfuse_export.windows import Window

log = structlog.get_logger()


class RunListener(Protocol):
    """Hears of the runs of projects. What it raises is logged and goes no further.

    Every attempt is `run_started`, any number of `window_exported`, then `run_failed` or `run_finished`. A
    process that is killed says nothing more.
    """

    def run_started(self, project: ProjectExport) -> None:
        """An attempt begins; no query has been sent."""
        ...

    def window_exported(self, project: ProjectExport, window: Window, history: History) -> None:
        """All tables of the window are committed and recorded, and its manifest stands."""
        ...

    def run_failed(self, project: ProjectExport, errors: Sequence[Exception], retrying: bool) -> None:
        """Windows failed, or the run was cancelled; `retrying` says that another attempt follows."""
        ...

    def run_finished(self, project: ProjectExport, still_failing: bool) -> None:
        """Every window of the run is exported; `still_failing` says that others failed and wait."""
        ...


@dataclass(frozen=True)
class Listeners:
    """Implements `RunListener`: calls each in turn, and logs what one of them raises."""

    listeners: tuple[RunListener, ...] = ()

    def run_started(self, project: ProjectExport) -> None:
        """See `RunListener`."""
        self._tell(project, lambda listener: listener.run_started(project))

    def window_exported(self, project: ProjectExport, window: Window, history: History) -> None:
        """See `RunListener`."""
        self._tell(project, lambda listener: listener.window_exported(project, window, history))

    def run_failed(self, project: ProjectExport, errors: Sequence[Exception], retrying: bool) -> None:
        """See `RunListener`."""
        self._tell(project, lambda listener: listener.run_failed(project, errors, retrying))

    def run_finished(self, project: ProjectExport, still_failing: bool) -> None:
        """See `RunListener`."""
        self._tell(project, lambda listener: listener.run_finished(project, still_failing))

    def _tell(self, project: ProjectExport, call: Callable[[RunListener], None]) -> None:
        for listener in self.listeners:
            try:
                call(listener)
            except Exception as error:
                log.error(
                    "listener_failed",
                    listener=type(listener).__name__,
                    projectId=project.project_id,
                    error=str(error),
                )
