"""Which shard of a queue an entity belongs to, as Langfuse computes it."""

import hashlib


def shard_of(project: str, key: str, shards: int) -> int:
    """The index of the shard: the first four bytes of a SHA-256, modulo the number of shards."""
    if shards == 1:
        return 0
    digest = hashlib.sha256(f"{project}-{key}".encode()).hexdigest()
    return int(digest[:8], 16) % shards


def shard_name(queue: str, index: int) -> str:
    """The queue of a shard: the first one has the base name."""
    return queue if index == 0 else f"{queue}-{index}"
