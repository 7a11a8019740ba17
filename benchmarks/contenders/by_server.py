"""Exports the window with `transfer: server`: ClickHouse writes into the bucket, the product checks it.

Args: the address of the S3 server, and a directory that is left empty. Prints the most memory it had, bytes.
"""

import sys
from dataclasses import replace

from langfuse_export.tables import OBSERVATIONS
from langfuse_export.windows import Frequency
from langfuse_worker.blobstore import StoreConfig
from tests.export.http.peak_memory import START, observations_exporter
from tests.peak import peak_bytes
from tests.rows import PROJECT

# As in tests/export/http/server_mode.py, which imports more than the product.
BUCKET, COLLECTION, REGION = "archive", "langfuse_archive", "eu-central-1"


def main(endpoint: str, _directory: str) -> None:
    """Export the window."""
    destination = StoreConfig(
        f"s3://{BUCKET}/", endpoint=endpoint, region=REGION, access_key_id="key", secret_access_key="secret"
    )
    exporter = observations_exporter(PROJECT, destination, Frequency.HOURLY)
    project = replace(exporter.project, named_collection=COLLECTION)
    exporter = replace(exporter, project=project)
    exporter.export(Frequency.HOURLY.window(START), [OBSERVATIONS])
    print(peak_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
