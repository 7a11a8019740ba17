"""Deterministic LLM observability data for the demo: projects, and their rows in batches ready to insert.

Every hour of a project is drawn from its own seed, so an hour holds the same records whatever the period.
Nothing arrives after the end of the period: what is still running then has no end, as in a live database.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from random import Random
from typing import Any

from langfuse_export.demo import review, support
from langfuse_export.demo.draw import after
from langfuse_export.demo.entities import Experiment, Opinions, Scenario, Trace, Wave
from langfuse_export.demo.rows import Row, event_row, observation_row, run_item_row, score_row, trace_row
from langfuse_export.demo.scores import add_scores
from langfuse_export.demo.traffic import EUROPEAN_DAY, HOUR, TWO_SHIFTS, starts

SEED = 20_260_101
TABLES = ("traces", "observations", "scores", "events_full", "dataset_run_items_rmt")

_EXPERIMENT_HOUR = 2
_LARGE_HOURS = (10, 15)
_DELETED = 0.012


@dataclass(frozen=True)
class DemoProject:
    """One Langfuse project of the demo.

    Attributes:
        id: value of `project_id`.
        name: name for people.
        traces_per_day: average number of traces in 24 hours.
        curve: relative traffic of the 24 hours of a day, UTC.
        scenario: builds one trace.
        opinions: what scores of its traces say.
    """

    id: str
    name: str
    traces_per_day: int
    curve: tuple[int, ...]
    scenario: Scenario
    opinions: Opinions


@dataclass
class Batch:
    """Rows for one insert: `client.insert(batch.table, batch.rows, column_names=batch.columns)`."""

    table: str
    columns: list[str]
    rows: list[tuple[Any, ...]]


PROJECTS: tuple[DemoProject, ...] = (
    DemoProject("support-bot", "Support bot", 1050, EUROPEAN_DAY, support.build, support.OPINIONS),
    DemoProject("code-review-agent", "Code review agent", 240, TWO_SHIFTS, review.build, review.OPINIONS),
)


def batches(project: DemoProject, start: datetime, days: int) -> Iterator[Batch]:
    """All rows of the project in the `days` times 24 hours after `start`, day by day.

    The versions of a record (begun, finished, deleted) come in different batches, so that ClickHouse keeps
    them in different parts until it merges.

    Args:
        project: one of PROJECTS.
        start: beginning of the period, timezone-aware; cut to the full hour in UTC.
        days: length of the period, at least 1.
    """
    if start.tzinfo is None:
        raise ValueError("start must be timezone-aware")
    if days < 1:
        raise ValueError(f"days must be at least 1, not {days}")
    begin = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    end = begin + timedelta(days=days)
    for day in range(days):
        hours = (begin + timedelta(days=day) + HOUR * hour for hour in range(24))
        traces = [trace for hour in hours for trace in _traces(project, hour)]
        yield from _day_batches(project.id, traces, end)


def _traces(project: DemoProject, hour: datetime) -> Iterator[Trace]:
    """The traces that start in one hour, with scores, deletions and the nightly experiment."""
    rng = Random(f"{SEED}/{project.id}/{hour.isoformat()}")
    moments = starts(rng, hour, project.traces_per_day, project.curve)
    for index, at in enumerate(moments):
        large = index == 1 and hour.hour in _LARGE_HOURS
        trace = project.scenario(rng, at, large=large)
        if hour.hour == _EXPERIMENT_HOUR:
            trace.environment = "sdk-experiment"
            trace.experiment = _experiment(project, hour, index, trace)
        add_scores(rng, trace, project.opinions, at_start=at in (moments[0], moments[-1]))
        if rng.random() < _DELETED:
            _delete(rng, trace)
        yield trace


def _experiment(project: DemoProject, hour: datetime, index: int, trace: Trace) -> Experiment:
    dataset = sha256(f"{project.id}/regression".encode()).hexdigest()[:24]
    return Experiment(
        run_id=sha256(f"{dataset}/{hour:%Y-%m-%d}".encode()).hexdigest()[:24],
        run_name=f"nightly {hour:%Y-%m-%d}",
        run_start=hour,
        dataset_id=dataset,
        item_id=f"{dataset[:16]}-item-{index:03d}",
        expected=trace.output,
    )


def _delete(rng: Random, trace: Trace) -> None:
    """Somebody deletes the trace with all that belongs to it, minutes to hours after its last change."""
    lives = [trace.life, *(span.life for span in trace.spans), *(score.life for score in trace.scores)]
    deleted = after(rng, max(life.finished for life in lives), 600, 40_000)
    for life in lives:
        life.deleted = deleted


def _day_batches(project: str, traces: list[Trace], end: datetime) -> Iterator[Batch]:
    """Batches of one day: first versions of all tables, then the updates, then the deletions."""
    rows: dict[tuple[Wave, str], list[Row]] = defaultdict(list)
    for trace in traces:
        for wave, table, row in _versions(project, trace, end):
            rows[wave, table].append(row)
    for wave in Wave:
        for table in TABLES:
            if batch := rows.pop((wave, table), None):
                yield Batch(table, list(batch[0]), [tuple(row.values()) for row in batch])


def _versions(project: str, trace: Trace, end: datetime) -> Iterator[tuple[Wave, str, Row]]:
    """Every row that the trace leaves in the database before `end`."""
    for version in trace.life.versions():
        if version.at < end:
            yield version.wave, "traces", trace_row(project, trace, version)
            if trace.experiment and not version.partial:
                item = run_item_row(project, trace, trace.experiment, version)
                yield version.wave, "dataset_run_items_rmt", item
    for span in trace.spans:
        for version in span.life.versions():
            if version.at < end:
                yield version.wave, "observations", observation_row(project, trace, span, version)
                yield version.wave, "events_full", event_row(project, trace, span, version)
    for score in trace.scores:
        for version in score.life.versions():
            if version.at < end:
                yield version.wave, "scores", score_row(project, trace, score, version)
