"""What schedules and sensors ask for."""

import dagster as dg

from langfuse_export.naming import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG


def bounds(request: dg.RunRequest) -> tuple[str, str]:
    """First and last partition of a request."""
    first = request.tags.get(RANGE_START_TAG) or request.partition_key or ""
    return first, request.tags.get(RANGE_END_TAG, first)


def tags_of(request: dg.RunRequest) -> dict[str, str]:
    """Its tags without the partition, which is among its bounds."""
    return {name: value for name, value in request.tags.items() if name != PARTITION_TAG}
