"""The orbits of known Solar-System bodies that a repository has, in one file that is replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gueststar.formats.parquet import read_catalog, read_metadata, write_catalog
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.orbit_columns import ORBIT, PREDICTED

FILE = "orbits/orbits.parquet"
"""Where a repository keeps them."""


class OrbitStore:
    """The orbits of the repository at ``root``."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE

    def read(self) -> Catalog:
        """Return `ORBIT` rows; none where nothing was imported."""
        return read_catalog(self.path, ORBIT) if self.path.exists() else ORBIT.empty()

    def predicted(self) -> Catalog:
        """Return `PREDICTED` rows: what predictions need of the orbits."""
        return read_catalog(self.path, PREDICTED) if self.path.exists() else PREDICTED.empty()

    def metadata(self) -> dict[str, Any]:
        """Return where they come from."""
        return read_metadata(self.path) if self.path.exists() else {}

    def take(self, orbits: Catalog, *, metadata: Mapping[str, Any]) -> int:
        """Store orbits; a body that was there already gets its new orbit. Return how many bodies there are then."""
        old = self.read()
        together = concatenate([old.select(~np.isin(old["name"], orbits["name"])), orbits])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_catalog(self.path, together, metadata={**self.metadata(), **metadata})
        return together.n_rows
