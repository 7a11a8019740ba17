"""How large the parts of an upload are.

Stores take a limited number of parts for one object, so their size bounds the object's. It is chosen before
the first byte, from what the writer expects; memory is a few parts, fewer the larger they are.
"""

from dataclasses import dataclass

PART_BYTES = 32 << 20
_MEMORY_BYTES = 3 * PART_BYTES
_PARTS_IN_FLIGHT = 3
# How many times larger than expected an object may become.
_HEADROOM = 4


@dataclass(frozen=True)
class Limits:
    """What a store allows.

    Attributes:
        parts: of one upload.
        object_bytes: of one object.
    """

    parts: int
    object_bytes: int


LIMITS = {
    "s3": Limits(10_000, 5 << 40),
    "gs": Limits(10_000, 5 << 40),
    "az": Limits(50_000, 190 << 40),
}


@dataclass(frozen=True)
class PartPlan:
    """How one object is uploaded.

    Attributes:
        part_bytes: size of each part but the last.
        in_flight: parts that are uploaded side by side, besides the one that fills.
        max_bytes: largest object that fits; None if there is no limit.
    """

    part_bytes: int
    in_flight: int
    max_bytes: int | None


def plan_parts(scheme: str, part_bytes: int, expected_bytes: int) -> PartPlan:
    """Parts for an object of about `expected_bytes`.

    The object may turn out four times as large, or as large as the store takes if that is less.

    Args:
        scheme: of the store, except file.
        part_bytes: least size of a part.
        expected_bytes: 0 if unknown.
    """
    limits = LIMITS[scheme]
    wanted = min(expected_bytes * _HEADROOM, limits.object_bytes)
    size = max(part_bytes, -(-wanted // limits.parts))
    in_flight = max(1, min(_PARTS_IN_FLIGHT, _MEMORY_BYTES // size))
    return PartPlan(size, in_flight, min(size * limits.parts, limits.object_bytes))
