"""Parts of a window that is too heavy to be read at once: ranges of a key that every row has for good."""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

# Keys that are sampled to cut a window by. Halves differ by some hundredths then.
SAMPLE_KEYS = 10_000
# The floor: a window is cut into so many parts at most.
MAX_PARTS = 256
# So many windows later, parts of twice the size are tried: what made rows heavy may be over.
WINDOWS_BEFORE_LARGER = 24


@dataclass(frozen=True)
class Part:
    """The rows whose part key lies in [low, high); None leaves a side open.

    A key is a text in hexadecimal digits, or a time in microseconds since the epoch with leading zeros, as
    the table's `part_column` says. Both sort like what they stand for.
    """

    low: str | None = None
    high: str | None = None


WHOLE = Part()


@dataclass(frozen=True)
class PartSize:
    """How many rows of a table may be read at once, as its last windows taught.

    Attributes:
        rows: rows of a part at most.
        windows: windows in a row that were read in parts of this size without being halved.
    """

    rows: int
    windows: int = 0

    def parts_of(self, rows: int) -> int:
        """Parts of a window with so many rows."""
        return max(1, min(MAX_PARTS, -(-rows // self.rows)))

    def after_parts(self) -> "PartSize":
        """The size to begin the next window with, after one was read in parts and none was too heavy."""
        if self.windows + 1 < WINDOWS_BEFORE_LARGER:
            return PartSize(self.rows, self.windows + 1)
        return PartSize(self.rows * 2)


class SortedKeys:
    """A sample of a window's part keys in their order, repeated as often as they were drawn."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = sorted(keys)

    def cut(self, count: int) -> list[Part]:
        """The whole window in at most `count` parts with about as many rows each."""
        size = len(self._keys)
        cuts = dict.fromkeys(self._keys[size * n // count] for n in range(1, count)) if size else {}
        bounds = [None, *(key for key in cuts if key != self._keys[0]), None]
        return [Part(low, high) for low, high in itertools.pairwise(bounds)]

    def halves(self, part: Part) -> list[Part]:
        """The part in two with about as many rows each; unchanged if its sampled rows share one key."""
        start = 0 if part.low is None else bisect_left(self._keys, part.low)
        end = len(self._keys) if part.high is None else bisect_left(self._keys, part.high)
        if start == end:
            return [part]
        middle = self._keys[(start + end) // 2]
        if middle == self._keys[start]:  # so many rows share the lowest key that they are a half
            at = bisect_right(self._keys, middle, start, end)
            if at == end:
                return [part]
            middle = self._keys[at]
        return [Part(part.low, middle), Part(middle, part.high)]
