"""Objects as sums over their detections, program by program, that new detections are added to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.mean_position import PositionSums, mean_position, sum_positions
from gueststar.algorithms.association.sky_index import healpix_29
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.columns import DIA_OBJECT
from gueststar.model.detections import OBJECT_PART

_SUMS = dict(
    zip(
        ("weight", "sum_x", "sum_y", "sum_z", "inverse_variance_ra", "inverse_variance_dec"),
        PositionSums._fields,
        strict=True,
    )
)


def parts_from(
    sources: Catalog, object_ids: NDArray[np.int64], group: NDArray[np.intp], *, first: tuple[int, int]
) -> Catalog:
    """Return what detections of one program add to their objects.

    ``group`` numbers the rows of ``object_ids``; ``first`` is the commit and the year of the first detection.
    """
    n = len(object_ids)
    sums = sum_positions(sources["ra"], sources["dec"], sources["ra_err"], sources["dec_err"], group, n)
    earliest, latest = _extremes(sources["mjd_tai"], sources["mjd_tai"], group, n)
    return OBJECT_PART.catalog(
        {
            "dia_object_id": object_ids, "program": np.full(n, sources["program"][0]),
            "n_dia_sources": np.bincount(group, minlength=n),
            "first_sequence": np.full(n, first[0]), "named_year": np.full(n, first[1]),
            "first_mjd_tai": earliest, "last_mjd_tai": latest,
        }
        | {column: getattr(sums, field) for column, field in _SUMS.items()}
    )  # fmt: skip


def merged_parts(before: Catalog, added: Catalog) -> Catalog:
    """Return parts with new ones added; the year of naming stays that of the first commit."""
    both = concatenate([before, added])
    keys, group = np.unique(np.stack([both["dia_object_id"], both["program"]]), axis=1, return_inverse=True)
    group = group.ravel()
    n = keys.shape[1]
    earliest, latest = _extremes(both["first_mjd_tai"], both["last_mjd_tai"], group, n)
    row_of_first = np.zeros(n, dtype=np.intp)
    row_of_first[group[::-1]] = np.arange(both.n_rows)[::-1]  # rows of ``before`` come first
    counts = np.bincount(group, weights=both["n_dia_sources"], minlength=n)
    return OBJECT_PART.catalog(
        {
            "dia_object_id": keys[0], "program": keys[1], "n_dia_sources": counts,
            "first_sequence": both["first_sequence"][row_of_first], "named_year": both["named_year"][row_of_first],
            "first_mjd_tai": earliest, "last_mjd_tai": latest,
        }
        | {column: np.bincount(group, weights=both[column], minlength=n) for column in _SUMS}
    )  # fmt: skip


def parts_without(parts: Catalog, removed: Catalog) -> Catalog:
    """Return parts as they were before ``removed`` (parts of the same objects) was added; those left empty are gone.

    Counts and sums are exact; the times of the first and the last detection stay as they are.
    """
    if removed.n_rows == 0 or parts.n_rows == 0:
        return parts
    taken = _keyed(removed)
    rows = np.array([taken.get(key, -1) for key in _keys(parts)], dtype=np.intp)
    is_touched = rows >= 0
    counts = parts["n_dia_sources"] - np.where(is_touched, removed["n_dia_sources"][rows], 0)
    sums = {name: parts[name] - np.where(is_touched, removed[name][rows], 0.0) for name in _SUMS}
    return parts.replace(n_dia_sources=counts, **sums).select(counts > 0)


def without_sources(objects: Catalog, parts: Catalog, sources: Catalog) -> tuple[Catalog, Catalog]:
    """Return objects (any columns of `DIA_OBJECT`, by number) and parts as they were before some detections.

    ``sources`` are `DIA_SOURCE` rows of one program. Objects that nothing else is known of are gone.
    """
    mine = sources.select(np.isin(sources["dia_object_id"], objects["dia_object_id"]))
    if mine.n_rows == 0:
        return objects, parts
    object_ids, group = np.unique(mine["dia_object_id"], return_inverse=True)
    parts = parts_without(parts, parts_from(mine, object_ids, group, first=(0, 0)))
    objects = objects.select(np.isin(objects["dia_object_id"], parts["dia_object_id"]))
    is_touched = np.isin(objects["dia_object_id"], object_ids)
    before, _ = objects_from(parts.select(np.isin(parts["dia_object_id"], object_ids)))
    columns = {name: objects[name].copy() for name in before}
    for name, values in columns.items():
        values[is_touched] = before[name]
    return objects.replace(**columns), parts


def _keys(parts: Catalog) -> list[tuple[int, int]]:
    return list(zip(parts["dia_object_id"].tolist(), parts["program"].tolist(), strict=True))


def _keyed(parts: Catalog) -> dict[tuple[int, int], int]:
    return {key: row for row, key in enumerate(_keys(parts))}


def _extremes(
    starts: NDArray[np.float64], ends: NDArray[np.float64], group: NDArray[np.intp], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest start and the largest end of each group."""
    earliest, latest = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(earliest, group, starts)
    np.maximum.at(latest, group, ends)
    return earliest, latest


def objects_from(parts: Catalog) -> tuple[Catalog, NDArray[np.int64]]:
    """Return the `DIA_OBJECT` rows of objects, all programs together, by number, and the index of each place."""
    if parts.n_rows == 0:
        return DIA_OBJECT.empty(), np.zeros(0, dtype=np.int64)
    object_ids, group = np.unique(parts["dia_object_id"], return_inverse=True)
    n = len(object_ids)
    sums = PositionSums(
        *(np.asarray(np.bincount(group, weights=parts[c], minlength=n), dtype=np.float64) for c in _SUMS)
    )
    place = mean_position(sums)
    earliest, latest = _extremes(parts["first_mjd_tai"], parts["last_mjd_tai"], group, n)
    counts = np.bincount(group, weights=parts["n_dia_sources"], minlength=n)
    columns = place._asdict() | {"n_dia_sources": counts, "first_mjd_tai": earliest, "last_mjd_tai": latest}
    return DIA_OBJECT.catalog({"dia_object_id": object_ids} | columns), healpix_29(place.ra, place.dec)
