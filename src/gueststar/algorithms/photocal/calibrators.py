"""Which of the matched stars may calibrate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def is_isolated(
    *, ra: Floats, dec: Floats, magnitude: Floats, rows: NDArray[np.intp], radius_arcsec: float, contrast: float = 2.5
) -> Bools:
    """Return for the catalog's ``rows`` whether no neighbour within ``radius_arcsec`` outshines a limit.

    The limit is ``contrast`` magnitudes below the star itself. Positions in degrees; stars without a magnitude
    do not disturb.
    """
    known = np.flatnonzero(np.isfinite(magnitude) & (magnitude < np.nanmax(magnitude[rows], initial=-99.0) + contrast))
    tree = cKDTree(_unit_vectors(ra[known], dec[known]))
    reach = 2.0 * np.sin(np.radians(radius_arcsec / 3600.0) / 2.0)
    near = cKDTree(_unit_vectors(ra[rows], dec[rows])).sparse_distance_matrix(tree, reach, output_type="coo_matrix")
    star, neighbour = rows[near.row], known[near.col]
    disturbs = (star != neighbour) & (magnitude[neighbour] < magnitude[star] + contrast)
    isolated = np.ones(rows.size, dtype=bool)
    isolated[near.row[disturbs]] = False
    return isolated


def _unit_vectors(ra: Floats, dec: Floats) -> Floats:
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)


def relax(required: list[Bools], wanted: list[Bools], *, enough: int) -> Bools:
    """Return which rows fulfil all that is required, and of what is wanted as much as leaves ``enough`` rows.

    Wanted conditions come most important first; they are dropped from the last.
    """
    base = np.logical_and.reduce(required)
    for count in range(len(wanted), 0, -1):
        chosen = np.logical_and.reduce([base, *wanted[:count]])
        if chosen.sum() >= enough:
            return np.asarray(chosen)
    return np.asarray(base)
