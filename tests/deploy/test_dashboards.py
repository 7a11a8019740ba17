"""Dashboards and alerts name what the code emits."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.emitted import Series, emitted
from tests.deploy.promql import labels_of, problems

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
PAGES = ("export-health", "export-lag", "ingestion", "isolation")


@pytest.fixture(scope="module")
def series() -> dict[str, Series]:
    """What the instruments emit."""
    return emitted()


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    return json.loads((GRAFANA / "dashboards" / f"{name}.json").read_text("utf-8"))


def rules() -> list[dict[str, Any]]:
    """The alerts."""
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_dashboards_are_those_that_are_described(tmp_path: Path) -> None:
    build = (GRAFANA / "build.py").read_text("utf-8")
    for name in ("build.py", "panels.py"):
        (tmp_path / name).write_text((GRAFANA / name).read_text("utf-8"))
    subprocess.run([sys.executable, "build.py"], cwd=tmp_path, check=True)

    built = {path.name: path.read_text("utf-8") for path in (tmp_path / "dashboards").iterdir()}
    stored = {path.name: path.read_text("utf-8") for path in (GRAFANA / "dashboards").iterdir()}
    assert built == stored, "run `python deploy/grafana/build.py`"
    assert set(stored) == {f"{name}.json" for name in PAGES}
    assert "python deploy/grafana/build.py" in build


@pytest.mark.parametrize("name", PAGES)
def test_panels_name_metrics_attributes_and_values_that_are_emitted(
    name: str, series: dict[str, Series]
) -> None:
    panels = dashboard(name)["panels"]
    queries = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
    assert queries

    assert [(title, p) for title, query in queries for p in problems(query, series)] == []


@pytest.mark.parametrize("name", PAGES)
def test_legends_name_labels_that_their_query_has(name: str, series: dict[str, Series]) -> None:
    targets = [target for panel in dashboard(name)["panels"] for target in panel["targets"]]
    for target in targets:
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert named <= labels_of(target["expr"], series), target["expr"]


@pytest.mark.parametrize("name", PAGES)
def test_variables_list_attributes_that_are_emitted(name: str, series: dict[str, Series]) -> None:
    page = dashboard(name)
    variables = {item["name"]: item["definition"] for item in page["templating"]["list"]}
    for definition in variables.values():
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", definition).groups()  # type: ignore[union-attr]
        assert label in series[metric].values
    used = set(re.findall(r"\$(?!__)(\w+)", json.dumps(page["panels"])))
    assert used == set(variables)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alerts_name_what_is_emitted(rule: dict[str, Any], series: dict[str, Series]) -> None:
    assert problems(rule["expr"], series) == []
    named = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    assert named <= labels_of(rule["expr"], series)


def test_every_alert_is_explained_to_the_operator() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert [rule["alert"] for rule in rules() if f"| `{rule['alert']}` |" not in text] == []


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("sum(langfuse_queue_retry_total)", "nothing emits langfuse_queue_retry_total"),
        ("sum by (shard) (langfuse_queue_depth)", "langfuse_queue_depth has no shard"),
        ('langfuse_queue_depth{kind="x"}', "langfuse_queue_depth has no kind"),
        (
            'rate(langfuse_blob_export_failures_total{reason=~"conflict|bored"}[5m])',
            "langfuse_blob_export_failures_total is never emitted with reason=bored",
        ),
    ],
)
def test_what_is_not_emitted_is_found(expression: str, problem: str, series: dict[str, Series]) -> None:
    assert problems(expression, series) == [problem]


def test_every_metric_of_the_product_is_shown_somewhere(series: dict[str, Series]) -> None:
    shown = "".join(path.read_text("utf-8") for path in (GRAFANA / "dashboards").iterdir())
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in series if name.startswith("langfuse_")}
    assert [name for name in sorted(families) if name not in shown] == []
