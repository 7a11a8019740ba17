"""Secrets as Langfuse stores them."""

import pytest
from pydantic import SecretStr

from langfuse_export.catalog.encryption import DecryptionError, decrypt

KEY = SecretStr("01" * 32)
# Made by Langfuse's own encryption.ts.
STORED = "000102030405060708090a0b:d6dfb855459d741c8a:f932241279f7f331ca4980362fe7816f"


def test_what_langfuse_encrypted() -> None:
    assert decrypt(STORED, KEY) == "my-secret"


@pytest.mark.parametrize(
    ("stored", "key", "message"),
    [
        (STORED, None, "ENCRYPTION_KEY is not set"),
        (STORED, SecretStr("02" * 32), "ENCRYPTION_KEY is not the key"),
        (STORED[:-1] + "0", KEY, "ENCRYPTION_KEY is not the key"),
        (STORED[1:], KEY, "damaged"),
        ("::", KEY, "damaged"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(stored: str, key: SecretStr | None, message: str) -> None:
    with pytest.raises(DecryptionError, match=message):
        decrypt(stored, key)


@pytest.mark.parametrize("stored", ["plain", "with:colon", "a/b+c="])
def test_what_was_stored_in_clear(stored: str) -> None:
    assert decrypt(stored, None) == stored
