"""Windows without rows of projects that are set up in Langfuse."""

import pytest

from tests.export.postgres.deployment import Deployment

MIDNIGHT = "2026-06-01T00"


@pytest.mark.parametrize(
    ("environment", "objects"),
    [
        ({}, ["manifests/2026-06-01T01-00-00.json", "observations_v2/", "scores/"]),
        ({"LANGFUSE_BLOB_STORAGE_EXPORT_SKIP_EMPTY": "true"}, ["manifests/2026-06-01T01-00-00.json"]),
    ],
)
def test_windows_without_rows_have_objects_unless_the_deployment_says_otherwise(
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    objects: list[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    deployment.add()

    assert deployment.run(MIDNIGHT, MIDNIGHT).success

    found = deployment.objects()
    assert len(found) == len(objects)
    assert all(name in key for name, key in zip(objects, found, strict=True))
    assert deployment.cursor() == "01T01:00"  # Langfuse's page shows the window as exported
