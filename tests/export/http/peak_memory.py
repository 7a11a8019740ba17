"""Exports observations of one window in a process of its own and prints the most memory it had, bytes.

Nothing but the product is imported, so that the number is the product's.
"""

import sys
from datetime import UTC, datetime

from langfuse_export.exporter import WindowExporter
from langfuse_export.formats import Encoding, FileFormat, ParquetCodec
from langfuse_export.prices import AttemptPrices
from langfuse_export.tables import OBSERVATIONS
from langfuse_export.telemetry import build_telemetry
from langfuse_export.windows import Frequency
from langfuse_worker.blobstore import BlobStore, StoreConfig
from langfuse_worker.clickhouse import connect
from langfuse_worker.settings import Settings
from tests.export.project import project_export
from tests.peak import peak_bytes

START = datetime(2026, 6, 1, 12, tzinfo=UTC)


def main(project_id: str, blobs: str, part_bytes: str, codec: str = ParquetCodec.SNAPPY) -> None:
    """Args: the project, the directory to export to, the bytes of an upload's part, and the codec."""
    destination = StoreConfig(f"file://{blobs}/", part_bytes=int(part_bytes))
    exporter = observations_exporter(project_id, destination, Frequency.HOURLY, codec=ParquetCodec(codec))
    exporter.export(Frequency.HOURLY.window(START), [OBSERVATIONS])
    print(peak_bytes())


def observations_exporter(
    project_id: str,
    destination: StoreConfig,
    frequency: Frequency,
    run_id: str | None = None,
    codec: ParquetCodec = ParquetCodec.SNAPPY,
) -> WindowExporter:
    """What exports a project's observations as Parquet, with the settings of the environment."""
    settings = Settings()
    project = project_export(
        settings,
        project_id,
        tables=(OBSERVATIONS,),
        frequency=frequency,
        encoding=Encoding(FileFormat.PARQUET, codec=codec),
        destination=destination,
    )
    source, telemetry = connect(settings), build_telemetry(settings)
    store, prices = BlobStore(destination), AttemptPrices(None, project.project_id)
    return WindowExporter(source, store, project, telemetry, "catchup", prices, run_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
