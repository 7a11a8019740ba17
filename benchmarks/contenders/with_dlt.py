"""Exports the result of a query with dlt: Arrow batches of clickhouse-connect to its filesystem destination.

Args: the directory to export to, and the codec of the file. The query is on standard input. Prints the most
memory it had, bytes.
"""

import os
import sys
from collections.abc import Iterator

import dlt  # pyright: ignore[reportMissingImports]  # of the extra `peers`, which `dev` has not
import pyarrow as pa

from benchmarks.contenders.reading import connect
from tests.peak import peak_bytes


def main(directory: str, codec: str) -> None:
    """Run the pipeline."""
    sql = sys.stdin.read()
    os.environ["DATA_WRITER__COMPRESSION"] = codec  # dlt's setting, which would be Snappy

    @dlt.resource(name="observations", write_disposition="replace")
    def observations() -> Iterator[pa.RecordBatch]:
        with connect().query_arrow_stream(sql) as batches:
            yield from batches

    pipeline = dlt.pipeline(
        "export",
        pipelines_dir=f"{directory}.pipelines",
        destination=dlt.destinations.filesystem(f"file://{directory}"),
        dataset_name="langfuse",
    )
    pipeline.run(observations(), loader_file_format="parquet").raise_on_failed_jobs()
    print(peak_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
