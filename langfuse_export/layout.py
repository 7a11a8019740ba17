"""Where objects lie below a destination: templates of their keys, and which of them are safe."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from string import Formatter
from typing import Self

from langfuse_export.windows import Frequency, Window

MANIFESTS = "manifests"  # stands where objects have their table
INCOMPLETE = "_incomplete"  # the folder of what is not yet whole; no reader's pattern matches it

# Digits that each has, always: names of months or two digits of a year could make two windows look alike.
_WIDTHS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "j": 3, "G": 4, "V": 2, "u": 1}
_CODE = re.compile(f"%([{''.join(_WIDTHS)}])")
_UNUSABLE = re.compile(r"[^A-Za-z0-9_.=+@,/-]")
_FIELDS = "{project}, {table}, {start:%Y...}, {end:%Y...} and {ext}"

_DAYS = ("%Y%m%d", "%Y%j", "%G%V%u")
_NEEDED = {
    Frequency.EVERY_20_MINUTES: [day + "%H%M" for day in _DAYS],
    Frequency.HOURLY: [day + "%H" for day in _DAYS],
    Frequency.DAILY: [*_DAYS],
    Frequency.WEEKLY: [*_DAYS, "%G%V"],
}

_DIGIT, _PROJECT, _TABLE, _EXT = "\0", "\1", "\2", "\3"


class _AnyTime:
    """Formats as every time at once: a mark for each of its digits."""

    def __format__(self, spec: str) -> str:
        return _CODE.sub(lambda code: _DIGIT * _WIDTHS[code[1]], spec)


@dataclass(frozen=True)
class KeyTemplate:
    """Keys of a project's objects and manifests, below the destination's prefix.

    `{project}`, `{table}` and `{ext}` are texts, `{start:...}` and `{end:...}` the window's bounds in UTC
    with codes of strftime.
    """

    text: str

    def key(self, project_id: str, table: str, window: Window, extension: str) -> str:
        """The key of a window's object; `table` is a table's path, or MANIFESTS."""
        return self.text.format(
            project=project_id, table=table, start=window.start, end=window.end, ext=extension
        )

    def shape(self, project_id: str, table: str, extension: str) -> str:
        """The keys of all windows at once, with a NUL for every digit of a time."""
        time = _AnyTime()
        return self.text.format(project=project_id, table=table, start=time, end=time, ext=extension)

    def folder(self, project_id: str, table: str) -> str:
        """The folder that has all windows of a table, with a slash at its end; empty: the prefix."""
        before_time = self.shape(project_id, table, "").partition(_DIGIT)[0]
        folder, slash, _ = before_time.rpartition("/")
        return folder + slash

    def check(self, frequency: Frequency) -> None:
        """Raises ValueError if two windows of the frequency, two tables or two projects could share a key.

        What is accepted cannot: {project} alone in a segment tells the project, all times have a fixed width,
        tables differ, and a manifest ends differently or in the same way.
        """
        codes = self._codes()
        segments = self.shape(_PROJECT, _TABLE, _EXT).split("/")
        if any(segment in ("", ".", "..") for segment in segments):
            raise ValueError(f"{self.text!r} has an empty folder, or one that is . or ..")
        if segments[0] == INCOMPLETE:
            raise ValueError(f"{self.text!r} begins with {INCOMPLETE}/, where unfinished windows wait")
        if not any(re.fullmatch(r"[^\x00-\x03]*\x01[^\x00-\x03]*", segment) for segment in segments):
            raise ValueError(
                f"{self.text!r} lacks {{project}} as the only field between two slashes, as in {{project}}/ "
                "or project={project}/: projects could share a key"
            )
        if "{table}" not in self.text:
            raise ValueError(f"{self.text!r} lacks {{table}}: the window's tables would share a key")
        if not self.text.endswith(".{ext}"):
            raise ValueError(f"{self.text!r} lacks .{{ext}} at its end: readers go by it")
        self._check_times(codes, frequency)

    def _codes(self) -> dict[str, set[str]]:
        """The codes of both times. Raises ValueError for anything that a template cannot have."""
        codes: dict[str, set[str]] = {"start": set(), "end": set()}
        try:
            parts = list(Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"{self.text!r} is no template: {error}") from None
        for literal, name, spec, conversion in parts:
            is_time, spec = name in codes, spec or ""
            plain = name in (None, "project", "table", "ext") and not spec
            if conversion or not (plain or (is_time and spec)):
                colon = f":{spec}" if spec else ""
                raise ValueError(f"{self.text!r} has {{{name}{colon}}}; there are {_FIELDS}")
            unusable = _UNUSABLE.search(literal + _CODE.sub("", spec))
            if unusable and is_time and "%" in _CODE.sub("", spec):
                known = " ".join(f"%{code}" for code in _WIDTHS)
                raise ValueError(f"{self.text!r} has {{{name}:{spec}}}; times can have {known}")
            if unusable:
                raise ValueError(
                    f"{self.text!r} has {unusable[0]!r}; letters, digits and _ . = + @ , / - work everywhere"
                )
            if is_time:
                codes[str(name)] |= set(_CODE.findall(spec))
        return codes

    def _check_times(self, codes: dict[str, set[str]], frequency: Frequency) -> None:
        ways = [(name, _CODE.findall(needed)) for name in codes for needed in _NEEDED[frequency]]
        if any(codes[name].issuperset(needed) for name, needed in ways):
            return
        # What is closest to the template, so that the error says what is missing of it.
        name, needed = max(ways, key=lambda way: len(codes[way[0]].intersection(way[1])))
        texts = "".join(f"%{code}" for code in needed if code not in codes[name])
        raise ValueError(
            f"{self.text!r} lacks {{{name}:{texts}}}: {frequency.value} windows would share a key"
        )


LANGFUSE = KeyTemplate("{project}/{table}/{end:%Y-%m-%dT%H-%M-%S}.{ext}")
_HIVE_DAY = "{table}/project={project}/dt={start:%Y-%m-%d}"
_HIVE_NAME = "{end:%Y-%m-%dT%H-%M-%S}.{ext}"


def hive(frequency: Frequency) -> KeyTemplate:
    """Folders named as Hive has them, which DuckDB and ClickHouse read as columns."""
    has_hours = frequency.length < Frequency.DAILY.length
    return KeyTemplate("/".join([_HIVE_DAY, *(["hour={start:%H}"] if has_hours else []), _HIVE_NAME]))


@dataclass(frozen=True)
class KeyShape:
    """The keys that a project writes of one table, whatever the window, or of its manifests.

    Attributes:
        place: store, bucket and prefix.
        template: what the keys are made with.
        text: place and keys, with a NUL for every digit of a time.
    """

    project_id: str
    place: str
    template: KeyTemplate
    text: str

    def may_meet(self, other: Self) -> bool:
        """Whether the other one, as long and of another place or template, could have one of its keys."""
        if (self.place, self.template) == (other.place, other.template):
            return False
        return all(a == b or _DIGIT in (a, b) for a, b in zip(self.text, other.text, strict=True))


def first_clash(shapes: Iterable[KeyShape]) -> tuple[str, str] | None:
    """Two projects of different templates or prefixes that could share a key."""
    alike: dict[str, set[KeyShape]] = defaultdict(set)
    for shape in shapes:
        alike[re.sub(r"[0-9]", _DIGIT, shape.text)].add(shape)
    for group in alike.values():
        if len({(shape.place, shape.template) for shape in group}) == 1:
            continue
        for one, other in combinations(sorted(group, key=lambda shape: shape.project_id), 2):
            if one.may_meet(other):
                return one.project_id, other.project_id
    return None
