"""`langfuse-worker demo`, twice."""

import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from langfuse_export.demo.data import PROJECTS
from langfuse_export.manifest import Manifest
from tests.command import ROOT, langfuse_worker


def test_the_demo_exports_two_projects_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)

    first = langfuse_worker("demo", home=home)

    assert first.code == 0, first.err
    assert "DuckDB" in first.out
    assert "make ui" in first.out
    assert "\x1b[" not in first.out
    blobs = home / "blobs"
    assert {path.name for path in blobs.iterdir()} == {project.id for project in PROJECTS}
    for project in PROJECTS:
        manifests = sorted((blobs / project.id / "manifests").iterdir())
        assert len(manifests) == 72
        rows = 0
        for path in manifests:
            for file in Manifest.model_validate_json(path.read_text()).files:
                data = (blobs / file.key).read_bytes()
                assert hashlib.sha256(data).hexdigest() == file.sha256
                assert pq.read_metadata(blobs / file.key).num_rows == file.row_count
                rows += file.row_count
        assert rows > 10_000
    before = _contents(blobs)

    second = langfuse_worker("demo", home=home)

    assert second.code == 0, second.err
    assert "nothing changed" in second.out
    assert _contents(blobs) == before


def _contents(blobs: Path) -> dict[Path, tuple[int, bytes]]:
    """Time of change and content of every file."""
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in blobs.rglob("*") if p.is_file()}
