"""Secrets as Langfuse stores them: AES-256-GCM, `hex(iv):hex(ciphertext):hex(tag)`."""

import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from langfuse_worker.logs import warn_once

_STORED = re.compile(r"([0-9a-f]{24}):([0-9a-f]*):([0-9a-f]{32})", re.IGNORECASE)


class DecryptionError(Exception):
    """A stored secret cannot be read; the message says what to do and holds no secret."""


def decrypt(stored: str, key: SecretStr | None) -> str:
    """The secret in a stored value. Langfuse wrote secrets in clear once; those are taken as they are.

    Args:
        stored: the value of a column.
        key: ENCRYPTION_KEY, 64 hex digits.

    Raises:
        DecryptionError: there is no key, it is another one, or the value is damaged.
    """
    match = _STORED.fullmatch(stored)
    if match is None:
        if stored.count(":") == 2:
            raise DecryptionError("secret_access_key is damaged: save it again in Langfuse")
        warn_once("secret_not_encrypted", column="secret_access_key")
        return stored
    if key is None:
        raise DecryptionError("ENCRYPTION_KEY is not set: secret_access_key cannot be decrypted")
    iv, text, tag = (bytes.fromhex(part) for part in match.groups())
    try:
        return AESGCM(bytes.fromhex(key.get_secret_value())).decrypt(iv, text + tag, None).decode()
    except (InvalidTag, UnicodeDecodeError):
        raise DecryptionError(
            "secret_access_key cannot be decrypted: ENCRYPTION_KEY is not the key that Langfuse used"
        ) from None
