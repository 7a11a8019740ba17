"""The size of an upload's parts, as the server sees them. Defect D9 of Langfuse: 48.8 GiB at most."""

from dataclasses import replace

import pytest

from langfuse_worker.blobstore import PART_BYTES, BlobStore
from langfuse_worker.blobstore.parts import LIMITS, Limits, plan_parts
from tests.servers.s3 import S3Proxy, S3Server

MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
BUCKET = "parts"


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize("expected", [0, GIB, 50 * GIB, 500 * GIB, 2 * TIB, 5 * TIB])
def test_an_object_may_be_four_times_as_large_as_expected_up_to_5_tb(scheme: str, expected: int) -> None:
    plan = plan_parts(scheme, PART_BYTES, expected)
    assert plan.max_bytes is not None
    assert plan.max_bytes >= min(4 * expected, 5 * TIB)
    assert -(-plan.max_bytes // plan.part_bytes) <= LIMITS[scheme].parts


@pytest.mark.parametrize("expected", [0, GIB, 75 * GIB])
def test_parts_stay_small_while_ten_thousand_of_them_are_enough(expected: int) -> None:
    plan = plan_parts("s3", PART_BYTES, expected)
    assert (plan.part_bytes, plan.in_flight) == (PART_BYTES, 3)


def test_memory_is_bounded_for_the_largest_object_there_is() -> None:
    plan = plan_parts("s3", PART_BYTES, 5 * TIB)
    assert plan.part_bytes * (plan.in_flight + 1) < 1.1 * GIB


@pytest.mark.defect("D9")
def test_the_server_gets_as_many_parts_as_it_allows_and_no_more(
    s3: S3Server, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "s3", Limits(parts=4, object_bytes=5 * TIB))
    s3.create_bucket(BUCKET)
    config = replace(s3.store_config(BUCKET, endpoint=s3_proxy.url), part_bytes=5 * MIB)

    BlobStore(config).write("small", iter([b"x" * MIB] * 12), "text/plain")
    BlobStore(config).write("large", iter([b"x" * MIB] * 27), "text/plain", expected_bytes=7 * MIB)

    assert part_sizes(s3_proxy, "small") == [5 * MIB, 5 * MIB, 2 * MIB]
    assert part_sizes(s3_proxy, "large") == [7 * MIB, 7 * MIB, 7 * MIB, 6 * MIB]
    assert s3.head(BUCKET, "large")["ContentLength"] == 27 * MIB


def part_sizes(proxy: S3Proxy, key: str) -> list[int]:
    """Bytes of the parts that came for a key, in their order."""
    parts = {
        int(dict(pair.split("=") for pair in r.query.split("&"))["partNumber"]): int(
            r.headers["content-length"]
        )
        for r in proxy.requests
        if r.method == "PUT" and r.path.endswith(f"/{key}") and "partNumber" in r.query
    }
    return [parts[number] for number in sorted(parts)]
