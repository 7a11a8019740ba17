"""Writes the dashboards beside this file from the descriptions in `panels.py`.

    python deploy/grafana/build.py

Grafana reads the JSON at start. tests/deploy checks that it is up to date, and that every metric and
attribute in it is emitted.
"""

import json
from pathlib import Path
from typing import Any

from panels import DASHBOARDS, Dashboard, Panel

DIRECTORY = Path(__file__).parent / "dashboards"
_DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
_COLUMNS = 24


def render(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard as Grafana's JSON model."""
    return {
        "uid": f"langfuse-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["langfuse-export"],
        "schemaVersion": 41,
        "editable": False,
        "refresh": "1m",
        "time": {"from": f"now-{dashboard.span}", "to": "now"},
        "timezone": "utc",
        "templating": {"list": [_variable(*item) for item in dashboard.variables.items()]},
        "panels": _place(dashboard.panels),
    }


def text(dashboard: Dashboard) -> str:
    """The content of its file."""
    return json.dumps(render(dashboard), indent=2) + "\n"


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _place(panels: list[Panel]) -> list[dict[str, Any]]:
    """From left to right, in rows as high as their first panel."""
    placed, x, y, height = [], 0, 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > _COLUMNS:
            x, y = 0, y + height
        height = panel.height if x == 0 else height
        grid = {"x": x, "y": y, "w": panel.width, "h": height}
        placed.append({"id": number, "gridPos": grid, **_panel(panel)})
        x += panel.width
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.thresholds:
        steps = [{"color": "green", "value": None}]
        steps += [{"color": color, "value": value} for color, value in panel.thresholds.items()]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds"}}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none"}
        defaults["custom"] = {"fillOpacity": 20 if panel.stacked else 5, "stacking": stacking}
    table = panel.kind == "table"
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": expression,
                "legendFormat": legend or "__auto",
                "instant": panel.kind in ("stat", "table", "bargauge"),
                "range": panel.kind == "timeseries",
                "format": "table" if table else "time_series",
            }
            for index, (legend, expression) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _OPTIONS[panel.kind],
        **({"transformations": _TABLE} if table else {}),
    }


_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "none", "colorMode": "value"},
    "bargauge": {"reduceOptions": {"calcs": ["lastNotNull"]}, "orientation": "horizontal"},
    "table": {"showHeader": True, "sortBy": [{"displayName": "Value", "desc": True}]},
}
_TABLE = [{"id": "organize", "options": {"excludeByName": {"Time": True}}}]


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for dashboard in DASHBOARDS:
        (DIRECTORY / f"{dashboard.name}.json").write_text(text(dashboard), encoding="utf-8")
