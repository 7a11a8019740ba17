"""What the programs around clickhouse-connect have in common."""

import os
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client


def connect() -> Client:
    """A client of the server that the environment names."""
    url = urlsplit(os.environ["CLICKHOUSE_URL"])
    return clickhouse_connect.get_client(
        host=url.hostname or "",
        port=url.port or 8123,
        username=os.environ["CLICKHOUSE_USER"],
        password=os.environ["CLICKHOUSE_PASSWORD"],
        compress=False,
        autogenerate_session_id=False,
    )
