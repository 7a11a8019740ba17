"""Puts a catalog's projects together into Dagster definitions."""

from collections.abc import Iterable, Iterator, Sequence

import dagster as dg

from langfuse_export.assets import build_project_assets
from langfuse_export.catalog import Catalog
from langfuse_export.naming import job_name
from langfuse_export.partitions import Partitions, partitions_def
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions, ExportResources
from langfuse_export.schedules import build_schedule
from langfuse_export.sensors.catch_up import build_catch_up_sensor
from langfuse_export.sensors.lag import build_lag_sensor
from langfuse_export.sensors.late import build_late_sensor
from langfuse_export.sensors.recovery import build_recovery_sensor
from langfuse_export.windows import Frequency


def build_defs(*, catalog: Catalog, options: ExportOptions, resources: ExportResources) -> dg.Definitions:
    """Definitions of every project of the catalog: assets, a job per frequency, schedules, sensors."""
    partitions = _partitions(catalog)
    exports = _exports(catalog.projects, partitions, options)
    parts = [
        exports,
        *(
            _automation(frequency, projects, partitions[frequency], options)
            for frequency, projects in _by_frequency(catalog.projects)
        ),
    ]
    jobs = list(exports.jobs or ())
    if jobs and options.late.interval_s:
        parts.append(dg.Definitions(sensors=[build_late_sensor(catalog.projects, partitions, jobs, options)]))
    if jobs:
        recovery = build_recovery_sensor(catalog.projects, partitions, jobs, options)
        parts.append(dg.Definitions(sensors=[recovery, build_lag_sensor(catalog.projects, options)]))
    return dg.Definitions.merge(*parts, _shared(resources))


def build_run_defs(
    *,
    catalog: Catalog,
    projects: Sequence[ProjectExport],
    options: ExportOptions,
    resources: ExportResources,
) -> dg.Definitions:
    """What a run of some of the catalog's projects needs: their assets and jobs, with its partitions."""
    return dg.Definitions.merge(_exports(projects, _partitions(catalog), options), _shared(resources))


def _partitions(catalog: Catalog) -> Partitions:
    return {
        frequency: partitions_def(frequency, min(project.start for project in projects))
        for frequency, projects in _by_frequency(catalog.projects)
    }


def _exports(
    projects: Iterable[ProjectExport], partitions: Partitions, options: ExportOptions
) -> dg.Definitions:
    assets: list[dg.AssetsDefinition] = []
    jobs = []
    for frequency, of_frequency in _by_frequency(projects):
        built = [build_project_assets(project, partitions[frequency], options) for project in of_frequency]
        assets += built
        jobs.append(
            dg.define_asset_job(
                job_name(frequency),
                selection=dg.AssetSelection.assets(*built).without_checks()
                | dg.AssetSelection.checks_for_assets(*built),
                description=f"Exports windows of the projects that are exported {frequency.value}.",
                executor_def=dg.in_process_executor,
            )
        )
    return dg.Definitions(assets=assets, jobs=jobs)


def _automation(
    frequency: Frequency,
    projects: list[ProjectExport],
    partitions: dg.TimeWindowPartitionsDefinition,
    options: ExportOptions,
) -> dg.Definitions:
    timings = dict.fromkeys(project.timing for project in projects)
    schedules = [
        build_schedule(frequency, timing, [p for p in projects if p.timing == timing], partitions, options)
        for timing in timings
    ]
    catch_up = build_catch_up_sensor(frequency, projects, partitions, options)
    sensors = [catch_up] if catch_up else []
    return dg.Definitions(schedules=schedules, sensors=sensors)


def _shared(resources: ExportResources) -> dg.Definitions:
    # A run spends 0.3 s in one process, and 5 s and more with a process per step.
    return dg.Definitions(resources=resources.as_dagster(), executor=dg.in_process_executor)


def _by_frequency(
    projects: Iterable[ProjectExport],
) -> Iterator[tuple[Frequency, list[ProjectExport]]]:
    for frequency in Frequency:
        chosen = [project for project in projects if project.frequency is frequency]
        if chosen:
            yield frequency, chosen
