"""The handler of another package's queue."""

SENT: list[str] = []


def send(to: str) -> None:
    """Remember who would get the report."""
    SENT.append(to)
