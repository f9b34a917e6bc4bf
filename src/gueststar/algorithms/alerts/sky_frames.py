"""Galactic and ecliptic coordinates, and separations, of arrays of places: a rotation each, no library in the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TO_GALACTIC = np.array(
    [
        [-0.0548755604162154, -0.8734370902348850, -0.4838350155487132],
        [+0.4941094278755837, -0.4448296299600112, +0.7469822444972189],
        [-0.8676661490190047, -0.1980763734312015, +0.4559837761750669],
    ]
)
"""From ICRS (The Hipparcos Catalogue, ESA SP-1200, vol. 1, eq. 1.5.11)."""

_OBLIQUITY = np.radians(84381.406 / 3600.0)
"""At J2000 (IAU 2006)."""


def galactic(ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Return galactic longitude (0 to 360) and latitude of ICRS places; degrees throughout."""
    return _angles(_rotated(unit_vectors(ra, dec), _TO_GALACTIC))


def ecliptic(ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Return longitude (0 to 360) and latitude on the mean ecliptic of J2000 of ICRS places; degrees throughout.

    The frame bias between ICRS and the mean equator of J2000 (20 mas) is left out.
    """
    cos, sin = np.cos(_OBLIQUITY), np.sin(_OBLIQUITY)
    return _angles(_rotated(unit_vectors(ra, dec), np.array([[1.0, 0.0, 0.0], [0.0, cos, sin], [0.0, -sin, cos]])))


def angle_arcsec(one: Floats, other: Floats) -> Floats:
    """Return the angle between unit vectors ``[n, 3]`` in arcsec, from their chord, which small angles do not spoil."""
    chord = np.sqrt(((one - other) ** 2).sum(axis=1))
    return np.degrees(2.0 * np.arcsin(np.minimum(chord / 2.0, 1.0))) * 3600.0


def unit_vectors(ra: Floats, dec: Floats) -> Floats:
    """Return the unit vectors ``[n, 3]`` of places (degrees)."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.column_stack((np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)))


def _rotated(vectors: Floats, rotation: Floats) -> Floats:
    """Return rotated vectors; term by term, so that the last bit does not depend on how many there are."""
    x, y, z = vectors.T
    return np.column_stack([row[0] * x + row[1] * y + row[2] * z for row in rotation])


def _angles(vectors: Floats) -> tuple[Floats, Floats]:
    x, y, z = vectors.T
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))
