"""Structured logging on stderr: one JSON object a line, or readable lines on a terminal."""

import logging
import sys
from collections.abc import MutableMapping
from functools import cache
from typing import Any

import structlog

# An error of somebody else's library may hold a whole statement with its parameters.
MAX_ERROR_CHARS = 2000

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
            _short_error,
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


@cache
def warn_once(event: str, **fields: str) -> None:
    """Log a warning, unless this process has logged the same before.

    For what only a person can mend, and what would be said again with every tick or every load until then.
    """
    structlog.get_logger().warning(event, **fields)


def _short_error(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if "error" in line:
        line["error"] = str(line["error"])[:MAX_ERROR_CHARS]
    return line


def _json_renderer() -> Any:
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _stderr_logger(*_: Any) -> structlog.WriteLogger:
    # Looked up at each use: test runners and Dagster replace sys.stderr. PrintLogger writes a line and its
    # end apart where stderr is unbuffered, and the line of another process may come between.
    return structlog.WriteLogger(sys.stderr)
