"""`langfuse-worker doctor`, as a shell sees it."""

import json
from pathlib import Path

import yaml

from tests.command import langfuse_worker
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.s3 import S3Server


def test_a_deployment_with_a_bucket_that_is_not_there_is_exit_code_1(
    tmp_path: Path, clickhouse: ClickHouseServer, s3: S3Server
) -> None:
    catalog = {
        "destinations": {
            "gone": {
                "url": "s3://gone/",
                "endpoint": s3.url,
                "access_key_id": "key",
                "secret_access_key": "hush-hush",
            },
            "files": {"url": f"file://{tmp_path}/blobs/"},
        },
        "projects": [
            {"id": "p1", "destination": "gone", "start": "2026-06-01"},
            {"id": "p2", "destination": "files", "start": "2026-06-01"},
        ],
    }
    (tmp_path / "exports.yaml").write_text(yaml.safe_dump(catalog))
    environment = {
        **clickhouse.environment_of_a_worker,
        "LANGFUSE_EXPORT_CONFIG": str(tmp_path / "exports.yaml"),
        "LANGFUSE_WORKER_ROLE": "export",
    }

    ended = langfuse_worker("doctor", "--json", home=tmp_path / "home", **environment)

    assert ended.code == 1, ended.err
    found = {finding["what"]: finding for finding in json.loads(ended.out)}
    assert found["clickhouse"]["status"] == "ok"
    assert found["catalog"]["result"] == "2 projects, 0 of them paused"
    assert (found["destination gone"]["status"], found["destination files"]["status"]) == ("problem", "ok")
    assert found["dagster: daemon"]["status"] == "warning"
    assert not [what for what in found if what.startswith("redis")]
    assert "hush-hush" not in ended.out + ended.err
    assert clickhouse.password not in ended.out + ended.err

    (tmp_path / "exports.yaml").write_text("projects: []")
    ended = langfuse_worker("doctor", home=tmp_path / "home", **environment)
    assert ended.code == 2
    assert "correct the catalog" in ended.out
    assert "problems: 1" in ended.out
    assert "\x1b[" not in ended.out


def test_an_embedded_deployment_has_warnings_only(tmp_path: Path) -> None:
    ended = langfuse_worker("doctor", home=tmp_path / "home")
    assert ended.code == 0, ended.out
    assert "problems: 0" in ended.out
