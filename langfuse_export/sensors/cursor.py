"""What a sensor remembers from tick to tick; Dagster keeps it as the sensor's cursor."""

from typing import Self

from pydantic import BaseModel, ValidationError


class Cursor(BaseModel, frozen=True):
    """A sensor's memory, as JSON."""

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """The cursor as Dagster kept it; an empty one if there is none, or one of another version."""
        try:
            return cls.model_validate_json(text) if text else cls()
        except ValidationError:
            return cls()
