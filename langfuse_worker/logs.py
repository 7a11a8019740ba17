"""Structured logging on stderr: one JSON object a line, or readable lines on a terminal."""

import logging
import sys
from typing import Any

import structlog

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(level: str = "info") -> None:
    """Set up structlog for this process.

    Args:
        level: least level that is written: debug, info, warning or error.
    """
    terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer(colors=True) if terminal else _json_renderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_stderr_logger,
        cache_logger_on_first_use=False,
    )
    for noisy in ("clickhouse_connect", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _json_renderer() -> Any:
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _stderr_logger(*_: Any) -> structlog.PrintLogger:
    # Looked up at each use: test runners and Dagster replace sys.stderr.
    return structlog.PrintLogger(sys.stderr)
