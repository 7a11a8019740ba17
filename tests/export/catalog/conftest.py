"""Variables that the catalogs of these tests refer to."""

import pytest


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE_KEY_ID", "the-key")
    monkeypatch.setenv("ARCHIVE_SECRET", "hunter2")
