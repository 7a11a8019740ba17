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
