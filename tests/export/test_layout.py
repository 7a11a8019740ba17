"""Templates of keys: which are refused, and that the others give every object a key of its own."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langfuse_export.layout import LANGFUSE, MANIFESTS, KeyTemplate, hive
from langfuse_export.tables import ALL_TABLES
from langfuse_export.windows import Frequency

GOOD = [
    (LANGFUSE.text, Frequency.EVERY_20_MINUTES),
    *[(hive(frequency).text, frequency) for frequency in Frequency],
    ("{project}-of-{table}/{table}/{project}/{start:%Y/%j}/{start:%H%M}.{ext}", Frequency.EVERY_20_MINUTES),
    ("{table}{end:%H%d%m%Y}/p_{project}_q/x.{ext}", Frequency.HOURLY),
    ("{project}/{end:%G-W%V-%u}/{table}.{ext}", Frequency.DAILY),
    ("{start:%G-W%V}/{project}/{table}.{ext}", Frequency.WEEKLY),
    ("{start:%Y}/{project}/{end:%Y%m%d}{table}.{ext}", Frequency.DAILY),
]


@pytest.mark.parametrize(("template", "frequency"), GOOD, ids=str)
@given(
    starts=st.lists(st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)), min_size=1, max_size=5),
    projects=st.lists(st.text("ab2-_=.{}", min_size=1).filter(lambda p: p not in (".", "..")), max_size=3),
)
def test_every_object_has_a_key_of_its_own(
    template: str, frequency: Frequency, starts: list[datetime], projects: list[str]
) -> None:
    keys = KeyTemplate(template)
    keys.check(frequency)
    firsts = [frequency.window(frequency.floor(start.replace(tzinfo=UTC))) for start in starts]
    steps = [timedelta(), frequency.length, timedelta(days=7), timedelta(days=28), timedelta(days=364)]
    windows = {frequency.window(first.start + step) for first in firsts for step in steps}
    for extension in ("json", "jsonl.gz", "parquet"):
        names = [(table.path, extension) for table in ALL_TABLES.values()] + [(MANIFESTS, "json")]
        ids = {"p", *projects}
        rendered = [
            keys.key(project, table, window, ext)
            for project in ids
            for table, ext in names
            for window in windows
        ]
        assert len(set(rendered)) == len(ids) * len(names) * len(windows)


@pytest.mark.parametrize(
    ("template", "frequency", "message"),
    [
        ("{table}/{end:%Y%m%d%H}.{ext}", "hourly", "lacks {project}"),
        ("{project}-{table}/{end:%Y%m%d%H}.{ext}", "hourly", "lacks {project} as the only field between"),
        ("{project}/{end:%Y%m%d%H}.{ext}", "hourly", "lacks {table}"),
        ("{project}/{table}/{end:%Y%m%d%H}", "hourly", "lacks .{ext} at its end"),
        ("{project}/{table}/{end:%Y%m%d}.{ext}", "hourly", "lacks {end:%H}: hourly windows would share"),
        ("{project}/{table}/{start:%Y%m%d%H}.{ext}", "every_20_minutes", "lacks {start:%M}"),
        ("{project}/{table}/{start:%Y%m%d}/{end:%H}.{ext}", "hourly", "lacks {start:%H}"),
        ("{project}/{table}/{start:%m%d}.{ext}", "daily", "lacks {start:%Y}"),
        ("{project}/{table}/{start:%G%V}.{ext}", "daily", "lacks {start:%u}"),
        ("{project}/{table}.{ext}", "weekly", "lacks {start:%Y%m%d}"),
        ("{project}/{table}/{start:%y%m%d}.{ext}", "daily", "has {start:%y%m%d}; times can have %Y %m %d"),
        (
            "{project}/{table}/{start}.{ext}",
            "daily",
            "has {start}; there are {project}, {table}, {start:%Y...}",
        ),
        ("{project}/{table}/{window}.{ext}", "daily", "has {window}; there are"),
        ("{project.x}/{table}/{start:%Y%m%d}.{ext}", "daily", "has {project.x}; there are"),
        ("{project!r}/{table}/{start:%Y%m%d}.{ext}", "daily", "has {project}; there are"),
        ("{project:>9}/{table}/{start:%Y%m%d}.{ext}", "daily", "has {project:>9}; there are"),
        ("{project}/{table}/{start:%Y%m%d}.{ext", "daily", "is no template: expected '}'"),
        ("/{project}/{table}/{start:%Y%m%d}.{ext}", "daily", "has an empty folder"),
        ("../{project}/{table}/{start:%Y%m%d}.{ext}", "daily", "has an empty folder, or one that is . or .."),
        ("_incomplete/{project}/{table}/{start:%Y%m%d}.{ext}", "daily", "begins with _incomplete/"),
        ("{project}/{table}/{start:%Y:%m:%d}.{ext}", "daily", "has ':'; letters, digits"),
        ("{project}/{table} {start:%Y%m%d}.{ext}", "daily", "has ' '; letters, digits"),
    ],
)
def test_a_template_that_could_lose_an_object_is_refused(template: str, frequency: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        KeyTemplate(template).check(Frequency(frequency))
    assert str(error.value).startswith(repr(template))


@pytest.mark.parametrize(
    ("template", "folder"),
    [
        (LANGFUSE.text, "p1/traces/"),
        (hive(Frequency.DAILY).text, "traces/project=p1/"),
        ("{start:%Y%m%d}/{project}/{table}.{ext}", ""),
    ],
)
def test_the_folder_of_a_table_is_what_all_its_keys_begin_with(template: str, folder: str) -> None:
    assert KeyTemplate(template).folder("p1", "traces") == folder
