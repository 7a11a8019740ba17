"""What the export of one table of one window leads to."""

from dataclasses import dataclass

from langfuse_export.manifest import ManifestFile
from langfuse_export.parts import PartSize


@dataclass(frozen=True)
class ExportedTable:
    """A committed object, or a window without rows that has none.

    Attributes:
        table: the catalog's name of the table.
        uri: where the object is; None without one.
        e_tag: the store's tag of exactly this content. Without an object: of what an earlier revision has
            left at its key, None if nothing.
        source_rows: rows that ClickHouse counted in the window.
        file: the object's entry in the manifest.
        part_size: what the next window of the table should begin with; None while none was too heavy.
    """

    table: str
    uri: str | None
    e_tag: str | None
    source_rows: int
    file: ManifestFile
    part_size: PartSize | None = None
