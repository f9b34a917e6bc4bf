"""Reference catalogs on local disk: HEALPix-sharded Parquet, in the directory layout of HATS."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.core.errors import ConfigError, DataError
from gueststar.core.healpix import (
    cone_key_ranges,
    cone_pixels,
    healpix_key,
    key_range,
    pixel_of_key,
    separation_deg,
)
from gueststar.formats.parquet import read_catalog, read_key_ranges, write_catalog
from gueststar.model.catalog import Catalog, Column, Schema, concatenate
from gueststar.model.columns import REFCAT

KEY = "_healpix_29"
"""Column that the shards are sorted by: the nested HEALPix number of order 29."""

SHARD = Schema(
    "refcat_shard", (Column(KEY, "i8", "", "nested HEALPix number of order 29 of the position"), *REFCAT.columns)
)
"""What a shard holds."""

_NAME = re.compile(r"^[a-z0-9][a-z0-9_.-]*$")
_FIRST_ORDER = 1
"""Shards are pixels of this order (29 degrees) or, where there are many stars, of a higher one."""
_LAST_ORDER = 11
_MAX_ROWS = 150_000
"""A shard of more rows is split into its four children."""
_ROWS_PER_GROUP = 20_000

_ENOUGH_STARS = 20
"""A catalog of fewer stars in a cone is used only if none has as many."""
_PLACE = Schema("place", (REFCAT["ra"], REFCAT["dec"]))

Shard = tuple[int, int]
"""Order and nested pixel."""


@dataclass(frozen=True)
class RefcatInfo:
    """What a stored catalog is."""

    name: str
    n_rows: int
    shards: dict[Shard, int]
    """Order and pixel -> number of rows."""
    metadata: dict[str, Any]
    """As given at import: origin, columns, whether magnitudes are calibrated."""


class RefcatStore:
    """The reference catalogs of a repository, each under its name.

    A catalog directory is replaced as a whole by switching a symbolic link, so that readers see the
    old or the new one, never a mixture.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._known: dict[tuple[Path, int], RefcatInfo] = {}

    def names(self) -> tuple[str, ...]:
        """Return the catalogs' names, sorted."""
        if not self.root.is_dir():
            return ()
        return tuple(sorted(p.name for p in self.root.iterdir() if p.is_symlink() and (p / _INFO).is_file()))

    def info(self, name: str) -> RefcatInfo:
        """Return what a catalog is; ConfigError if there is none of that name."""
        path = self.root / name / _INFO
        if not _NAME.match(name) or not path.is_file():
            known = ", ".join(self.names()) or "none"
            raise ConfigError(f"{self.root} has no reference catalog {name!r} (there: {known})")
        file = path.resolve()
        version = (file, file.stat().st_mtime_ns)
        if version not in self._known:
            document = json.loads(file.read_text())
            shards = {(int(order), int(pixel)): int(rows) for order, pixel, rows in document["shards"]}
            self._known[version] = RefcatInfo(name, sum(shards.values()), shards, document["metadata"])
        return self._known[version]

    def import_catalog(
        self, name: str, catalog: Catalog, *, metadata: Mapping[str, Any] | None = None, replace: bool = False
    ) -> RefcatInfo:
        """Store the rows of a REFCAT catalog under a name, merged with those that are there.

        New rows take the place of stored ones with their ``ref_id`` in the same shard; with ``replace``
        the old catalog goes as a whole. Returns what is stored then. Raises DataError for positions off the sky.
        """
        if not _NAME.match(name):
            raise ConfigError(f"{name!r} is no name for a catalog: lower-case letters, digits, '_', '-', '.'")
        _require_positions(catalog)
        with self._locked():
            old = None if replace or name not in self.names() else self.info(name)
            version = self._new_version(name)
            try:
                shards = _write_shards(version, catalog, self.root / name if old else None, old.shards if old else {})
                merged = dict(old.metadata if old else {}) | dict(metadata or {})
                _write_documents(version, name, shards, merged)
                self._switch(name, version)
            except BaseException:
                shutil.rmtree(version, ignore_errors=True)
                raise
        return self.info(name)

    def remove(self, name: str) -> None:
        """Delete a catalog; ConfigError if there is none of that name."""
        self.info(name)
        with self._locked():
            target = (self.root / name).resolve()
            (self.root / name).unlink()
            shutil.rmtree(target, ignore_errors=True)

    def cone(self, *, ra: float, dec: float, radius_deg: float, name: str | None = None) -> Catalog:
        """Return the stars within ``radius_deg`` of a place (degrees, ICRS), of the catalog ``name``.

        Without a name, of the catalog that `choose` picks. Empty where the catalog has no stars.
        """
        chosen = name or self.choose(ra=ra, dec=dec, radius_deg=radius_deg)
        return self._within(chosen, REFCAT, ra=ra, dec=dec, radius_deg=radius_deg)

    def known_stars(self, *, ra: float, dec: float, radius_deg: float) -> Catalog:
        """Return `cone`, empty also where the store holds no catalog at all: for work that can do without."""
        return self.cone(ra=ra, dec=dec, radius_deg=radius_deg) if self.names() else REFCAT.empty()

    def count(self, *, ra: float, dec: float, radius_deg: float) -> int | None:
        """Return the number of stars within a cone, of the catalog that `choose` picks; None without any catalog."""
        if not self.names():
            return None
        name = self.choose(ra=ra, dec=dec, radius_deg=radius_deg)
        return self._within(name, _PLACE, ra=ra, dec=dec, radius_deg=radius_deg).n_rows

    def everything(self, name: str) -> Catalog:
        """Return all stars of a catalog."""
        shards = sorted(self.info(name).shards)
        return concatenate([REFCAT.empty(), *(read_catalog(_shard_path(self.root / name, s), REFCAT) for s in shards)])

    def _within(self, name: str, schema: Schema, *, ra: float, dec: float, radius_deg: float) -> Catalog:
        """Return columns of the stars within a cone."""
        ranges = cone_key_ranges(ra=ra, dec=dec, radius_deg=radius_deg)
        found = [schema.empty()]
        for shard in self._touched(name, ranges):
            part = read_key_ranges(_shard_path(self.root / name, shard), schema, key=KEY, ranges=ranges)
            inside = separation_deg(ra=part["ra"], dec=part["dec"], ra0=ra, dec0=dec) <= radius_deg
            found.append(part.select(inside))
        return concatenate(found)

    def choose(self, *, ra: float, dec: float, radius_deg: float) -> str:
        """Return the catalog to use at a place: one of enough stars, calibrated before others, then of most stars.

        ConfigError if the store is empty.
        """
        names = self.names()
        if not names:
            raise ConfigError(f"{self.root} holds no reference catalog: bring one with 'gueststar refcat import'")
        if len(names) == 1:
            return names[0]

        def worth(name: str) -> tuple[bool, bool, int]:
            rows = self._within(name, _PLACE, ra=ra, dec=dec, radius_deg=radius_deg).n_rows
            return rows >= _ENOUGH_STARS, bool(self.info(name).metadata.get("is_calibrated", True)), rows

        return max(names, key=worth)

    def coverage(self, name: str, *, order: int = 7) -> NDArray[np.int64]:
        """Return the nested pixels of ``order`` (7: 0.46 degrees) in which the catalog has stars, sorted."""
        pixels = [np.zeros(0, dtype=np.int64)]
        for shard in self.info(name).shards:
            pixels.append(np.unique(pixel_of_key(self._keys(name, shard), order)))
        return np.unique(np.concatenate(pixels))

    def covered_fraction(self, *, ra: float, dec: float, radius_deg: float, name: str, order: int = 7) -> float:
        """Return the part of the pixels of ``order`` touched by a cone in which the catalog has stars."""
        wanted = cone_pixels(ra=ra, dec=dec, radius_deg=radius_deg, order=order)
        ranges = cone_key_ranges(ra=ra, dec=dec, radius_deg=radius_deg + 60.0 / 2**order)
        there = [pixel_of_key(self._keys(name, shard), order) for shard in self._touched(name, ranges)]
        return float(np.isin(wanted, np.concatenate(there)).mean()) if there else 0.0

    def _keys(self, name: str, shard: Shard) -> NDArray[np.int64]:
        path = _shard_path(self.root / name, shard)
        return np.asarray(read_catalog(path, Schema("", (SHARD[KEY],)))[KEY], dtype=np.int64)

    def _touched(self, name: str, ranges: list[tuple[int, int]]) -> list[Shard]:
        def touches(shard: Shard) -> bool:
            first, after = key_range(*shard)
            return any(a < after and first < b for a, b in ranges)

        return [shard for shard in sorted(self.info(name).shards) if touches(shard)]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / ".lock", "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _new_version(self, name: str) -> Path:
        versions = self.root / ".versions"
        versions.mkdir(exist_ok=True)
        taken = [int(p.name.rsplit("@", 1)[1]) for p in versions.glob(f"{name}@*")]
        path = versions / f"{name}@{max(taken, default=0) + 1}"
        path.mkdir()
        return path

    def _switch(self, name: str, version: Path) -> None:
        """Point the name to a new version; versions before the last one are deleted."""
        link, temporary = self.root / name, self.root / f".{name}.new"
        previous = link.resolve() if link.is_symlink() else None
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path(".versions") / version.name)
        os.replace(temporary, link)
        for other in version.parent.glob(f"{name}@*"):
            if other not in (version, previous) and other.resolve() != previous:
                shutil.rmtree(other, ignore_errors=True)


_INFO = "gueststar.json"


def _require_positions(catalog: Catalog) -> None:
    ra, dec = catalog["ra"], catalog["dec"]
    bad = ~(np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90.0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(f"{int(bad.sum())} positions are off the sky, first row {row}: ra {ra[row]}, dec {dec[row]}")


def _shard_path(directory: Path, shard: Shard) -> Path:
    order, pixel = shard
    return directory / "dataset" / f"Norder={order}" / f"Dir={pixel // 10000 * 10000}" / f"Npix={pixel}.parquet"


def _write_shards(version: Path, catalog: Catalog, old: Path | None, shards: dict[Shard, int]) -> dict[Shard, int]:
    """Write the new rows merged with the old catalog's; shards that no new row touches are linked."""
    keys = healpix_key(ra=catalog["ra"], dec=catalog["dec"])
    result = dict(shards)
    changed = _assign(keys, set(shards))
    for shard in shards:
        if old and shard not in changed:
            target = _shard_path(version, shard)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(_shard_path(old, shard).resolve(), target)
    for shard, rows in changed.items():
        part = SHARD.catalog({KEY: keys[rows], **catalog.select(rows)})
        if old and shard in shards:
            stored = read_catalog(_shard_path(old, shard), SHARD)
            part = concatenate([stored.select(~np.isin(stored["ref_id"], part["ref_id"])), part])
        result.pop(shard, None)
        for piece, piece_rows in _split(part[KEY], shard).items():
            ordered = piece_rows[np.argsort(part[KEY][piece_rows], kind="stable")]
            write_catalog(_shard_path(version, piece), part.select(ordered), row_group_size=_ROWS_PER_GROUP)
            result[piece] = int(piece_rows.size)
    return result


def _assign(keys: NDArray[np.int64], existing: set[Shard]) -> dict[Shard, NDArray[np.intp]]:
    """Return which rows go to which shard: the stored one that covers them, or a new one that overlaps none."""
    inner = {(o, p >> (2 * (order - o))) for order, p in existing for o in range(_FIRST_ORDER, order)}
    result: dict[Shard, NDArray[np.intp]] = {}
    left = np.arange(keys.size)
    for order in range(_FIRST_ORDER, _LAST_ORDER + 1):
        pixels = pixel_of_key(keys[left], order)
        goes_on = np.zeros(left.size, dtype=bool)
        for pixel, rows in _groups(pixels):
            if (order, pixel) in inner:
                goes_on[rows] = True
            else:
                result[order, pixel] = left[rows]
        left = left[goes_on]
    return result


def _split(keys: NDArray[np.int64], shard: Shard) -> dict[Shard, NDArray[np.intp]]:
    """Return the rows of a shard by the pieces into which its number of rows breaks it."""
    order, _ = shard
    if keys.size <= _MAX_ROWS or order >= _LAST_ORDER:
        return {shard: np.arange(keys.size)}
    result: dict[Shard, NDArray[np.intp]] = {}
    for pixel, rows in _groups(pixel_of_key(keys, order + 1)):
        for piece, inner in _split(keys[rows], (order + 1, pixel)).items():
            result[piece] = rows[inner]
    return result


def _groups(labels: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each label and the rows that have it."""
    order = np.argsort(labels, kind="stable")
    values, starts = np.unique(labels[order], return_index=True)
    for value, rows in zip(values, np.split(order, starts[1:]), strict=False):
        yield int(value), rows


def _write_documents(version: Path, name: str, shards: dict[Shard, int], metadata: dict[str, Any]) -> None:
    """Write our own description, and what HATS readers ask for."""
    listed = sorted((order, pixel, rows) for (order, pixel), rows in shards.items())
    (version / _INFO).write_text(json.dumps({"metadata": metadata, "shards": listed}, indent=1))
    lines = ["Norder,Npix"] + [f"{order},{pixel}" for order, pixel, _ in listed]
    (version / "partition_info.csv").write_text("\n".join(lines) + "\n")
    properties = {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": sum(rows for *_, rows in listed),
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": KEY,
        "hats_col_healpix_order": 29,
        "hats_order": max((order for order, *_ in listed), default=_FIRST_ORDER),
    }
    (version / "hats.properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
