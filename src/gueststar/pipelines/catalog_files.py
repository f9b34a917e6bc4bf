"""Folders of large star catalogs in many files, of which only what fields need is brought into the survey.

All-sky catalogs come as hundreds of tables. Which part of the sky each one holds is found out once (by reading it) and
remembered; for a field the tables that touch it are read, and the rows around it are taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import DataError
from gueststar.core.healpix import cone_pixels, healpix_key, pixel_of_key, separation_deg
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.named_table import read_named_table
from gueststar.formats.refcat_table import refcat_from_table
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.columns import REFCAT

INDEX = "cache/catalog_files.json"
"""File of a repository that remembers which part of the sky each table holds."""

_ORDER = 6
"""HEALPix order of the index: pixels of 0.9 degrees."""
_TABLE = re.compile(r"\.(fits|fit|fts|ecsv|vot|votable|xml|csv|parquet|parq)(\.gz)?$", re.IGNORECASE)


class Part(NamedTuple):
    """The rows of a catalog around a place."""

    catalog: Catalog
    """`REFCAT` rows."""
    files: tuple[str, ...]
    """Names of the tables that they come from."""
    is_calibrated: bool
    """Whether there are magnitudes in griz."""


class CatalogFolder:
    """A folder of tables that are one catalog together."""

    def __init__(self, folder: Path, *, index: Path) -> None:
        """``index`` is the file that remembers what the tables hold; it may be deleted at any time."""
        self.folder = folder
        self._index = index
        self.unreadable: list[str] = []
        """Tables that hold no stars, with the reason."""

    @property
    def name(self) -> str:
        """The catalog's name: that of the folder, as names of catalogs are written."""
        return re.sub(r"[^a-z0-9_.-]+", "-", self.folder.name.lower()).strip("-_.") or "catalog"

    def tables(self) -> list[Path]:
        """Return the folder's tables."""
        found = self.folder.rglob("*") if self.folder.is_dir() else ()
        return sorted(path for path in found if _TABLE.search(path.name) and not path.name.startswith("."))

    def around(self, *, ra: float, dec: float, radius_deg: float) -> Part:
        """Return the stars within a cone (degrees)."""
        wanted = set(cone_pixels(ra=ra, dec=dec, radius_deg=radius_deg, order=_ORDER).tolist())
        found, names = [REFCAT.empty()], list[str]()
        for path, pixels in self._contents():
            if not wanted.isdisjoint(pixels):
                rows = _read(path)
                inside = separation_deg(ra=rows["ra"], dec=rows["dec"], ra0=ra, dec0=dec) <= radius_deg
                if inside.any():
                    found.append(rows.select(inside))
                    names.append(path.name)
        catalog = concatenate(found)
        is_calibrated = any(bool(np.isfinite(catalog[f"mag_{band}"]).any()) for band in "griz")
        return Part(catalog, tuple(names), is_calibrated)

    def _contents(self) -> list[tuple[Path, list[int]]]:
        """Return the tables with the pixels in which they have stars; tables that are new or changed are read."""
        known, fresh = _read_index(self._index), dict[str, dict[str, Any]]()
        found = []
        self.unreadable = []
        for path in self.tables():
            facts = path.stat()
            entry = known.get(str(path))
            if entry is None or (entry["size"], entry["mtime_ns"]) != (facts.st_size, facts.st_mtime_ns):
                entry = {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns, **_looked_at(path)}
                fresh[str(path)] = entry
            if entry["problem"]:
                self.unreadable.append(f"{path.name}: {entry['problem']}")
            found.append((path, entry["pixels"]))
        if fresh:
            with appearing_whole(self._index) as temporary:
                temporary.write_text(json.dumps(known | fresh))
        return found


def _looked_at(path: Path) -> dict[str, Any]:
    try:
        rows = _read(path)
    except DataError as problem:
        return {"pixels": [], "problem": " ".join(str(problem).split())}
    return {"pixels": _pixels(rows["ra"], rows["dec"]).tolist(), "problem": ""}


def _pixels(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.unique(pixel_of_key(healpix_key(ra=ra, dec=dec), _ORDER))


def _read(path: Path) -> Catalog:
    return refcat_from_table(read_named_table(path)).catalog


def _read_index(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def folders_of(paths: Iterable[Path], *, root: Path) -> list[CatalogFolder]:
    """Return folders of catalogs whose contents are remembered in the repository at ``root``."""
    return [CatalogFolder(path, index=root / INDEX) for path in paths]
