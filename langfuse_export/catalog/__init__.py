"""Which project exports which tables, where to and how often: one model, and the readers that deliver it."""

from langfuse_export.catalog.load import Catalog, load_catalog
from langfuse_export.catalog.model import CatalogError

__all__ = ["Catalog", "CatalogError", "load_catalog"]
