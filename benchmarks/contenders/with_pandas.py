"""Exports the result of a query as a short script does: clickhouse-connect's DataFrame, and `to_parquet`.

Args: the directory to export to. The query is on standard input. Prints the most memory it had, bytes.
"""

import sys

import pandas as pd

from benchmarks.contenders.reading import connect
from tests.peak import peak_bytes


def main(directory: str) -> None:
    """Read all, then write all."""
    rows: pd.DataFrame = connect().query_df_arrow(sys.stdin.read())
    rows.to_parquet(f"{directory}/observations.parquet")
    print(peak_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
