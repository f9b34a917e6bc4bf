"""Mean positions that can be added to: weighted sums of unit vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.sky_index import sky_positions, unit_vectors

Floats = NDArray[np.float64]

_LEAST_ERROR_ARCSEC = 0.02
_UNKNOWN_ERROR_ARCSEC = 1.0
_GRID = 2.0**-30
"""Contributions are rounded to multiples of this, so that sums below 2**23 are exact and know no order.

It moves the place of a detection with an error of 1 arcsec by 0.1 mas at most, of one with 0.1 arcsec by 1 uas.
"""


class PositionSums(NamedTuple):
    """Sums over detections of one group; the sum of two groups' sums is the sums of both.

    To the bit, in any order, and a group taken out again leaves no trace, as long as the weights sum up to less than
    2**23 (3,000 detections of the least error, 80,000 of 0.1 arcsec); beyond, to the rounding of float64.
    """

    weight: Floats
    """Of inverse variances, arcsec**-2."""
    x: Floats
    """Of weighted unit vectors."""
    y: Floats
    z: Floats
    inverse_variance_ra: Floats
    inverse_variance_dec: Floats


class MeanPosition(NamedTuple):
    """Weighted means: degrees, errors on the sky in arcsec."""

    ra: Floats
    dec: Floats
    ra_err: Floats
    dec_err: Floats


def sum_positions(
    ra: Floats, dec: Floats, ra_err: Floats, dec_err: Floats, group: NDArray[np.intp], n_groups: int
) -> PositionSums:
    """Return the sums of each group (rows of ``group`` number it from 0).

    Unit vectors are averaged, so that neither RA 0 nor a pole is special. Errors (arcsec) below 0.02 count
    as 0.02, unknown ones (NaN, 0 or negative) as 1. Each contribution is rounded to a grid on which sums are exact.
    """
    variance_ra, variance_dec = _variance(ra_err), _variance(dec_err)
    weight = 2.0 / (variance_ra + variance_dec)
    vectors = unit_vectors(ra, dec) * weight[:, None]
    columns = (weight, vectors[:, 0], vectors[:, 1], vectors[:, 2], 1.0 / variance_ra, 1.0 / variance_dec)
    return PositionSums(
        *(np.asarray(np.bincount(group, weights=_on_grid(c), minlength=n_groups), dtype=np.float64) for c in columns)
    )


def mean_position(sums: PositionSums) -> MeanPosition:
    """Return the mean positions that sums stand for; each group needs a detection."""
    ra, dec = sky_positions(np.stack([sums.x, sums.y, sums.z], axis=-1))
    ra_err, dec_err = 1.0 / np.sqrt(sums.inverse_variance_ra), 1.0 / np.sqrt(sums.inverse_variance_dec)
    return MeanPosition(ra, dec, np.asarray(ra_err), np.asarray(dec_err))


def _on_grid(values: Floats) -> Floats:
    return np.asarray(np.rint(values / _GRID) * _GRID)


def _variance(error: Floats) -> Floats:
    is_known = np.isfinite(error) & (error > 0)
    known = np.maximum(np.where(is_known, error, _UNKNOWN_ERROR_ARCSEC), _LEAST_ERROR_ARCSEC)
    return np.asarray(known, dtype=np.float64) ** 2
