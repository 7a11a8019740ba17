"""When consumers that died are started again: at once, but those that die at their start later and later."""

from dataclasses import dataclass

_FIRST_S, _LONGEST_S = 1.0, 8.0
_SETTLED_S = 10.0


@dataclass
class RestartDelay:
    """Of the consumers of a pool; times are those of one monotonic clock, seconds."""

    due: float = 0.0
    _next_s: float = 0.0
    _is_noted: bool = False

    def died(self, lived_s: float, now: float) -> None:
        """Note the death of a consumer that lived for so long; several before the next start count as one."""
        if lived_s >= _SETTLED_S:
            self.due, self._next_s = now, 0.0
        elif not self._is_noted:
            self.due = now + self._next_s
            self._next_s = min(2 * self._next_s or _FIRST_S, _LONGEST_S)
        self._is_noted = True

    def is_over(self, now: float) -> bool:
        """Whether who died is to be started again; the next death is then another one."""
        self._is_noted = self._is_noted and now < self.due
        return now >= self.due
