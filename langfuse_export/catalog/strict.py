"""What every model of `exports.yaml` has in common."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Refuses keys that it does not know, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
