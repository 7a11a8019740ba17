"""Windows are cut into parts that have every key once."""

from hypothesis import given
from hypothesis import strategies as st

from langfuse_export.parts import MAX_PARTS, Part, SortedKeys

KEYS = st.lists(st.binary(max_size=3).map(lambda key: key.hex().upper()), max_size=60)


def _holders(parts: list[Part], key: str) -> int:
    return sum((p.low is None or p.low <= key) and (p.high is None or key < p.high) for p in parts)


@given(sample=KEYS, others=KEYS, count=st.integers(1, MAX_PARTS))
def test_every_key_lies_in_exactly_one_part_whether_it_was_sampled_or_not(
    sample: list[str], others: list[str], count: int
) -> None:
    parts = SortedKeys(sample).cut(count)

    assert 1 <= len(parts) <= count
    assert all(_holders(parts, key) == 1 for key in [*sample, *others, "", "FF" * 9])


@given(sample=KEYS, others=KEYS, depth=st.integers(1, 5))
def test_halves_of_halves_have_every_key_once(sample: list[str], others: list[str], depth: int) -> None:
    keys, parts = SortedKeys(sample), [Part()]
    for _ in range(depth):
        parts = [half for part in parts for half in keys.halves(part)]

    assert all(_holders(parts, key) == 1 for key in [*sample, *others, ""])
    assert len(parts) <= max(1, len(set(sample)))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_a_part_is_halved_as_long_as_its_sample_has_two_keys(numbers: list[int]) -> None:
    parts, keys = [Part()], SortedKeys(map(str, numbers))
    for _ in range(10):
        parts = [half for part in parts for half in keys.halves(part)]

    assert len(parts) == len(set(numbers))


def test_parts_have_about_as_many_rows_each() -> None:
    sample = [f"{n:05d}" for n in range(10_000)]
    parts = SortedKeys(sample).cut(8)
    assert [sum(_holders([part], key) for key in sample) for part in parts] == [1250] * 8
