"""`langfuse-worker export check` with projects in Langfuse's Postgres."""

from pathlib import Path

from tests.command import Ended, langfuse_worker
from tests.export.postgres.deployment import Deployment


def _check(tmp_path: Path) -> Ended:
    # The deployment's variables are in the environment of this process.
    return langfuse_worker("export", "check", "--json", home=tmp_path / "home")


def test_check_tries_the_projects_of_postgres(deployment: Deployment, tmp_path: Path) -> None:
    deployment.add()
    good = _check(tmp_path)
    assert good.code == 0, good.out
    findings = {finding["what"]: finding["result"] for finding in good.json}
    assert findings["postgres"].startswith("1 projects in 127.0.0.1:")
    assert {"p1: events", "destination exports of p1"} <= set(findings)
    assert deployment.objects() == []

    deployment.add("bad", export_frequency="monthly")
    table = "blob_storage_integrations"
    deployment.postgres.execute(f"REVOKE UPDATE (last_sync_at) ON {table} FROM langfuse_export")
    try:
        bad = _check(tmp_path)
    finally:
        deployment.postgres.execute(f"GRANT UPDATE (last_sync_at) ON {table} TO langfuse_export")

    assert bad.code == 1
    failed = {finding["what"]: finding["result"] for finding in bad.json if not finding["ok"]}
    assert "GRANT UPDATE (last_sync_at)" in failed.pop("postgres")
    assert "export_frequency 'monthly'" in failed.pop("bad: row")
    assert failed == {}


def test_postgres_that_is_down_is_exit_code_2_and_one_line(deployment: Deployment, tmp_path: Path) -> None:
    with deployment.postgres.closed():
        ended = _check(tmp_path)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "DATABASE_URL: Postgres at 127.0.0.1" in ended.err
    assert deployment.postgres.server.password not in ended.err
