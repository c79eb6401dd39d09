"""What every section of the settings is: frozen, and without unknown names."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of `masklets.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
