"""Masks of personal data. They are SQL, so what leaves ClickHouse is masked already."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

_BLOCK_BYTES = 64  # of SHA-256


@dataclass(frozen=True)
class Hash:
    """HMAC-SHA256 of the value, hex; the same value has the same hash in every column, table and window.

    Attributes:
        key: the secret; without it nobody can try out values.
    """

    key: bytes = field(repr=False)

    kind: Literal["hash"] = "hash"

    def element(self, value: str, name: str) -> str:
        """SQL of one masked string. An empty one stays empty, because it says that there is none."""
        inner = f"SHA256(concat({{mask_inner:Secret}}, {value}))"
        return f"if({value} = '', '', lower(hex(SHA256(concat({{mask_outer:Secret}}, {inner})))))"

    def parameters(self, name: str) -> dict[str, str]:
        """Bound parameters of `element`: none."""
        return {}

    def secrets(self) -> dict[str, bytes]:
        """The two padded keys of HMAC (RFC 2104). ClickHouse has a function for it only of late."""
        key = self.key if len(self.key) <= _BLOCK_BYTES else hashlib.sha256(self.key).digest()
        key = key.ljust(_BLOCK_BYTES, b"\0")
        return {
            "mask_inner": bytes(byte ^ 0x36 for byte in key),
            "mask_outer": bytes(byte ^ 0x5C for byte in key),
        }


@dataclass(frozen=True)
class Replace:
    """Every match of each RE2 pattern becomes its text, one pair after the other.

    Attributes:
        pairs: patterns and texts; \\0 to \\9 in a text are the groups of the match.
    """

    pairs: tuple[tuple[str, str], ...]

    kind: Literal["replace"] = "replace"

    def element(self, value: str, name: str) -> str:
        """SQL of one masked string."""
        for number in range(len(self.pairs)):
            at = f"mask_{name}_{number}"
            value = f"replaceRegexpAll({value}, {{{at}:String}}, {{{at}_text:String}})"
        return value

    def parameters(self, name: str) -> dict[str, str]:
        """Bound parameters of `element`."""
        return {
            key: value
            for number, (pattern, text) in enumerate(self.pairs)
            for key, value in ((f"mask_{name}_{number}", pattern), (f"mask_{name}_{number}_text", text))
        }

    def secrets(self) -> dict[str, bytes]:
        """Secrets of `element`: none."""
        return {}


Mask = Hash | Replace


def is_maskable(kind: str) -> bool:
    """Whether values of a ClickHouse type are strings, or hold strings."""
    return kind.endswith("String)") or kind == "String"


def masked(mask: Mask, expression: str, name: str, kind: str) -> str:
    """SQL of a column's masked value, of the same ClickHouse type. The keys of maps are left as they are."""

    def each(values: str) -> str:
        return f"arrayMap(v -> {mask.element('v', name)}, {values})"

    if kind.startswith("Map("):
        sql = f"mapFromArrays(mapKeys({expression}), {each(f'mapValues({expression})')})"
    elif kind.startswith("Array("):
        sql = each(expression)
    else:
        sql = mask.element(expression, name)
    return f"CAST({sql} AS {kind})"
