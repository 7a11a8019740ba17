"""What is raised for a catalog that cannot be used."""


class CatalogError(Exception):
    """The catalog is wrong; the message is one line that names the place, the value and the remedy."""
