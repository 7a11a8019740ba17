"""Langfuse's defects and its fork's weaknesses, what is done here instead, and the tests that show it.

A test that would catch a defect says so: `@pytest.mark.defect("D7")`. `python -m tests.defects` makes
docs/defects.md from these marks; tests/test_defects.py fails when page and marks disagree.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "defects.md"
MARK = "defect"


@dataclass(frozen=True)
class Defect:
    """Something that goes wrong elsewhere.

    Attributes:
        id: what tests name it by.
        theirs: what happens there; Markdown, one line.
        ours: what happens here instead; Markdown, one line.
    """

    id: str
    theirs: str
    ours: str


@dataclass(frozen=True)
class MarkedTest:
    """A test with a mark; `path` is relative to the repository, `names` are those of the defects."""

    path: str
    function: str
    names: tuple[str, ...]


LANGFUSE = (
    Defect(
        "D1",
        "Keys end in the window's end, cut to seconds. A window and its sub-second remainder share one: the "
        "second overwrites objects and manifest of the first.",
        "Windows lie on the clock, so no two of a frequency end in the same second. The manifest that stands "
        "at a key is read first, and one of a longer window is not overwritten.",
    ),
    Defect(
        "D2",
        "Rows are chosen by event time, 20 minutes later, once. What is written or changed afterwards never "
        "reaches the bucket.",
        "A sensor finds the windows whose rows were written, changed or deleted after their export, and has "
        "just those tables exported again under the same keys; the manifest counts its revision.",
    ),
    Defect(
        "D3",
        "Events: `LIMIT 1 BY` without an order by version. An old version, or a deleted row, may win.",
        "`FINAL`: the newest version wins, whatever part holds it.",
    ),
    Defect(
        "D4",
        "Deleted observations are exported as rows; without deduplication every version is.",
        "`FINAL` leaves deleted rows out, also when their last version moved to another time of its day.",
    ),
    Defect(
        "D5",
        "Events without the `io` group have metadata values cut to 200 characters.",
        "Events are read from `events_full`, whatever columns are chosen.",
    ),
    Defect(
        "D6",
        "`\\uXXXX` in a stored string is decoded once too often: JSON within JSON breaks, text changes.",
        "ClickHouse writes the format; strings come back as they are stored, in each format.",
    ),
    Defect(
        "D7",
        "Both bounds are inclusive: a row on the boundary is in two files.",
        "Windows are half-open, `[start, end)`.",
    ),
    Defect(
        "D8",
        "The history of a project with events alone begins in 1970 or with its first score, one window "
        "after another.",
        "It begins with the day of the first row in any exported table, never before 2023; rows of 1970 are "
        "no reason to.",
    ),
    Defect(
        "D9",
        "Objects beyond 48.8 GiB have no more parts; a truncated file can be committed.",
        "Parts grow with what the window is estimated to hold. An object that would still not fit fails, and "
        "nothing is committed.",
    ),
    Defect(
        "D10",
        "An exception in mid-stream ends in a truncated file that counts as a success (before ClickHouse "
        "25.11); manifests have no row count of Parquet.",
        "The end of the file, its rows against ClickHouse's count, and the exception's tag are checked "
        "before the upload is completed, on every version.",
    ),
    Defect(
        "D11",
        "CSV of an empty window has no header; column order depends on how groups were saved; large numbers "
        "lose digits; numbers come in quotes, prices in two pairs of them.",
        "Empty files have header or schema, columns one order, numbers and prices their digits and no more.",
    ),
    Defect(
        "D12",
        "Runs of one window may overlap; the slower one overwrites objects and moves the cursor backwards.",
        "Nobody but a person asks for a window that is on its way. Should two runs meet all the same, the "
        "one whose objects were replaced fails and is retried. The cursor moves forwards only.",
    ),
    Defect(
        "D13",
        "Errors before the first table are neither stored nor reported.",
        "Every fault, the first connection included, is counted, logged and fails its run. A row that cannot "
        "be exported says so in its `last_error`, and holds no other project up.",
    ),
    Defect(
        "D14",
        "A failing export is tried five times every 20 minutes, for ever, whatever its frequency.",
        "A run retries transient faults three times; after that a project is tried again at growing "
        "distances, by one window at a time if every window fails alike.",
    ),
    Defect(
        "D15",
        "One refused request disables the export until a person enables it.",
        "No single response stops a project. Repeated refusals do, until the configuration changes or a "
        "probe succeeds; it is said where people see it.",
    ),
    Defect(
        "D16",
        "The cursor moves once all tables are done: one failing table has every other read and uploaded "
        "again, and holds the window back.",
        "Each table is recorded as it finishes. A retry exports what is missing, no more, and the cursor "
        "moves window by window.",
    ),
)

FORK = (
    Defect(
        "F1",
        "Progress of halves is kept in memory: if the second fails, the first is read again.",
        "A part that has been read waits in the destination, and any worker goes on from there, unless its "
        "rows have changed.",
    ),
    Defect(
        "F2",
        "Every error halves a window, wrong credentials and uploads too: some 31 attempts, times five.",
        "Only ClickHouse's own lack of memory, time or rows does.",
    ),
    Defect(
        "F3",
        "`priority = 2` beside queries of priority 0, where it does nothing.",
        "The shipped profiles give exports 2, people and ingestion 1, and none of them may be 0.",
    ),
    Defect(
        "F4",
        "Profiles without constraints: a query's own settings win over them.",
        "The shipped profiles have constraints: a query may lower its limits and not raise them.",
    ),
    Defect(
        "F5",
        "Files below 1 kB count as broken, so quiet projects fail.",
        "An empty window gives a valid empty file, checked by its footer and not by its size.",
    ),
    Defect(
        "F6",
        "Deleted versions are filtered out before the newest is chosen: deleted rows come back.",
        "`FINAL` chooses first, and deleted rows are gone.",
    ),
    Defect(
        "F7",
        "The payload of a window is sorted, and ClickHouse holds the result back until it is complete.",
        "No export sorts or groups its payload, and bytes leave while the query runs.",
    ),
    Defect(
        "F8",
        "Keys to the second, inclusive bounds, and halves with keys of their own that overlap others.",
        "One window is one object a table, however it was read.",
    ),
    Defect(
        "F9",
        "Columns of an older Langfuse; the format that was chosen is ignored.",
        "Langfuse 4.16's columns, in the format that was chosen.",
    ),
    Defect(
        "F10",
        "The watermark follows the newest row: the tail of a quiet project waits for later rows.",
        "Windows close by the clock, with rows or without.",
    ),
    Defect(
        "F11",
        "One export at a time in a process, and a tick a minute repeats what is broken.",
        "Projects run side by side, each in a pool of its own; no tick asks again for what has failed.",
    ),
    Defect(
        "F12",
        "No manifest, row counts, history, status, nor export of a chosen window.",
        "Each window has a manifest with rows and sums; `export status`, `export history` and `export run`.",
    ),
)


def marked_tests() -> list[MarkedTest]:
    """Every test that names a defect, in the order of files and lines."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [test for path in files for test in _tests_of(path)]


def _tests_of(path: Path) -> Iterator[MarkedTest]:
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names = tuple(name for mark in node.decorator_list for name in _names(mark))
            if names:
                yield MarkedTest(path.relative_to(ROOT).as_posix(), node.name, names)


def _names(decorator: ast.expr) -> Iterator[str]:
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{MARK}":
        yield from (ast.literal_eval(argument) for argument in decorator.args)


def page(tests: Sequence[MarkedTest]) -> str:
    """The content of docs/defects.md."""
    return f"""\
# Defects that are tested for

Made by `python -m tests.defects` from the marks of the tests. Each test fails if the defect were here.

## Langfuse 4.16's scheduled export

{_table("Langfuse", LANGFUSE, tests)}
## The fork with adaptive windows

{_table("the fork", FORK, tests)}"""


def _table(whose: str, defects: Sequence[Defect], tests: Sequence[MarkedTest]) -> str:
    lines = [f"| | {whose} | here | tests |", "|---|---|---|---|"]
    for defect in defects:
        shown = "<br>".join(_link(test) for test in tests if defect.id in test.names)
        lines.append(f"| {defect.id} | {defect.theirs} | {defect.ours} | {shown} |")
    return "\n".join(lines) + "\n"


def _link(test: MarkedTest) -> str:
    words = test.function.removeprefix("test_").replace("_", " ")
    return f"[{words}](../{test.path})"


if __name__ == "__main__":
    PAGE.write_text(page(marked_tests()), "utf-8")
