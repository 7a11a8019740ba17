"""Halves of emojis, as clients send them that cut texts: lone surrogates, which UTF-8 cannot say.

Langfuse takes such texts, exports have U+FFFD in their place, and so has what is ingested. Looking for them
costs as much as reading JSON does, so it is done with what was refused and with nothing else.
"""

import re
from typing import Any

import orjson

_LEVELS = 300  # orjson writes 254 of them, and refuses what is deeper whatever its texts are
_REPLACEMENT = rb"\ufffd"
# Every escape is matched, so that the second backslash of `\\` begins none.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
    rb"|(?P<encoded>\xed[\xa0-\xbf][\x80-\xbf])",
    re.DOTALL,
)


def read_json(text: bytes | str) -> Any:
    """What JSON says, with U+FFFD for each lone surrogate.

    Raises:
        orjson.JSONDecodeError: it is none; a ValueError.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        whole = _ESCAPE.sub(lambda found: _REPLACEMENT if found.lastgroup else found[0], data)
        if whole == data:
            raise
        return orjson.loads(whole)


def without_lone_surrogates(value: Any, levels: int = _LEVELS) -> Any:
    """A value of JSON with U+FFFD for each lone surrogate, in keys, too, and whole characters for pairs."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if not levels:
        return value
    if isinstance(value, dict):
        return {
            without_lone_surrogates(name): without_lone_surrogates(of, levels - 1)
            for name, of in value.items()
        }
    if isinstance(value, list):
        return [without_lone_surrogates(item, levels - 1) for item in value]
    return value
