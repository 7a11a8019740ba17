"""The README says what the code does."""

import re
from enum import Enum
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from langfuse_export.catalog.yaml_file import read_yaml
from langfuse_export.tables import ALL_TABLES, Table
from langfuse_export.tables.descriptions import description
from langfuse_ingest.queues import QUEUES
from langfuse_worker.settings import Settings

ROOT = Path(__file__).parents[1]


def settings_rows() -> list[str]:
    """The lines of the README's settings table."""
    rows = []
    for field in Settings.model_fields.values():
        default = field.default.value if isinstance(field.default, Enum) else field.default
        secret = hasattr(default, "get_secret_value")
        shown = " " if default in (None, (), "", PydanticUndefined) or secret else f" `{default}` "
        rows.append(f"| `{field.validation_alias}` |{shown}| {field.description} |")
    return rows


def queue_rows() -> list[str]:
    """The lines of the queues' table."""
    rows = []
    for spec in QUEUES:
        flag = f"`{spec.flag}`" if spec.enabled else f"`{spec.flag}` (off)"
        consumers = f"{spec.concurrency}, `{spec.concurrency_variable}`" if spec.concurrency_variable else "1"
        shards = f"`{spec.shards_variable}`" if spec.shards_variable else "1"
        delays = ", ".join(map(str, spec.delays))
        rows.append(f"| `{spec.name}` | {flag} | {consumers} | {shards} | {delays} |")
    return rows


def test_the_table_of_queues_is_complete_and_right() -> None:
    text = (ROOT / "docs/operations.md").read_text("utf-8")
    assert "\n".join(queue_rows()) in text


def column_rows(table: Table) -> list[str]:
    """The lines of a table's columns; further ones are named."""
    further = {column.name for column in (*table.extra, *table.price_columns)}
    columns = (*table.columns, *table.extra, *table.price_columns)
    return [
        f"| `{column.name}`{' *' if column.name in further else ''} | `{column.type}` | "
        f"{description(table.name, column.name)} |"
        for column in columns
    ]


@pytest.mark.parametrize("table", ALL_TABLES.values(), ids=list(ALL_TABLES))
def test_the_columns_of_each_table_are_explained(table: Table) -> None:
    section = (ROOT / "docs/columns.md").read_text("utf-8").split(f"## `{table.name}`")[1].split("## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == column_rows(table)


def test_the_settings_table_is_complete_and_right() -> None:
    readme = (ROOT / "README.md").read_text("utf-8").splitlines()
    table = [line for line in readme if line.startswith("| `") and "`OTEL_*`" not in line]
    assert table == settings_rows()


def test_the_example_catalog_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "exports.example.yaml").read_text("utf-8")
    for name in re.findall(r"\$\{([A-Z_]{5,})\}", text):
        monkeypatch.setenv(name, "x")
    model = read_yaml(ROOT / "docs" / "exports.example.yaml")
    assert [project.id for project in model.projects] == ["support-bot", "internal-tools", "*"]


def test_links_in_the_documentation_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        targets = [part.split(")")[0] for part in page.read_text("utf-8").split("](")[1:]]
        for target in targets:
            if "://" not in target:
                name, _, anchor = target.partition("#")
                path = page.parent / name if name else page
                assert path.exists(), f"{page.name}: {target}"
                assert not anchor or anchor in anchors(path.read_text("utf-8")), f"{page.name}: {target}"


def anchors(text: str) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
