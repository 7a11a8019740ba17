"""The ClickHouse tables of Langfuse 4.16 on a single node, one `.sql` file per table.

Only for an empty or embedded database: a Langfuse deployment brings its own migrations. ClickHouse before
26.1 also needs `enable_full_text_index = 1` for the text indexes of the events tables.
"""

from importlib.resources import files


def statements() -> list[str]:
    """The DDL in the order to run it; every statement is `IF NOT EXISTS` and names no database."""
    scripts = sorted(
        (entry for entry in files(__name__).iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    return [script.read_text(encoding="utf-8").strip() for script in scripts]
