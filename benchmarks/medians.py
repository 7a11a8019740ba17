"""Medians of what was measured several times."""

from collections.abc import Sequence
from dataclasses import fields
from statistics import median
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def medians(results: Sequence[T]) -> T:
    """The median of each figure."""
    kind = type(results[0])
    return kind(**{f.name: median(getattr(result, f.name) for result in results) for f in fields(kind)})
