"""What people are told."""

from enum import StrEnum


class NoticeKind(StrEnum):
    """What people are told."""

    FAILING = "failing"
    STOPPED = "stopped"
    RECOVERED = "recovered"
    BEHIND = "behind"
    """Nothing fails, but a window that is due has waited for long."""
    CAUGHT_UP = "caught_up"
    """It was behind, and no window waits any more."""
    LEFT_OUT = "left_out"
    """Its row in Langfuse's Postgres is invalid."""
    TAKEN_IN = "taken_in"
    """It was left out, and its row is invalid no more."""
