"""Which project exports which tables, where to and how often: one model, and the readers that deliver it."""

from langfuse_export.catalog.errors import CatalogError
from langfuse_export.catalog.load import Catalog, load_catalog

__all__ = ["Catalog", "CatalogError", "load_catalog"]
