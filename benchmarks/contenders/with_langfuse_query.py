"""Exports the result of a query with this product's copy path and the settings that Langfuse sends.

Counted, checked, summed and written as the product does it; neither compared with a count nor in a manifest.

Args: the directory to export to. The query is on standard input. Prints the most memory it had, bytes.
"""

import sys

from langfuse_export.formats import Encoding, FileFormat
from langfuse_export.tables import OBSERVATIONS
from langfuse_export.verified_stream import VerifiedStream
from langfuse_export.window_source import Cancellation, SourceSummary
from langfuse_worker.blobstore import BlobStore, StoreConfig
from langfuse_worker.clickhouse import Query, QueryComment, QueryLimits, connect
from langfuse_worker.settings import Settings
from tests.peak import peak_bytes

# Neither threads, nor a priority, nor memory.
LIMITS = QueryLimits(max_threads=0, priority=0, max_memory_usage=0, max_execution_time_s=3605)
SETTINGS = {
    "output_format_parquet_row_group_size": 1_000_000,
    "output_format_parquet_row_group_size_bytes": 128 << 20,
    "max_block_size": 8192,
    "output_format_parquet_batch_size": 16,
    "output_format_parquet_max_dictionary_size": 0,
}


def main(directory: str) -> None:
    """Stream the result into one object."""
    source = connect(Settings()).with_limits(LIMITS)
    query = Query(sys.stdin.read(), QueryComment("benchmark"), settings=SETTINGS)
    encoding = Encoding(FileFormat.PARQUET)
    stream = VerifiedStream(encoding, OBSERVATIONS, Cancellation(source), lambda _: None)
    with source.stream(query, encoding.clickhouse_format) as chunks:
        checked = stream.pass_through(chunks, lambda rows: SourceSummary(rows, 0, 0, 0, 0))
        store = BlobStore(StoreConfig(f"file://{directory}/"))
        store.write("observations.parquet", checked, encoding.content_type)
    print(peak_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
