"""Versions of rows: milliseconds that only grow, whichever consumer asks.

A consumer first makes its events visible in the index, then takes a version, then reads what the index has.
So of two consumers that merge the same entity at once, the one with the larger version has read the events of
both, and ReplacingMergeTree keeps its row. No locks, and clocks of machines need not agree.
"""

from datetime import UTC, datetime

from redis import Redis

from langfuse_ingest.values import utc_text

KEY = "langfuse:ingestion:version"
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
local version = math.max(now, last + 1)
redis.call('SET', KEYS[1], string.format('%.0f', version))
return string.format('%.0f', version)
"""


def next_version(redis: Redis) -> str:
    """A version larger than all before, as an ISO time with milliseconds. Raises redis.RedisError."""
    milliseconds = int(redis.eval(_SCRIPT, 1, KEY))  # pyright: ignore[reportArgumentType]
    return utc_text(datetime.fromtimestamp(milliseconds / 1000, UTC))
