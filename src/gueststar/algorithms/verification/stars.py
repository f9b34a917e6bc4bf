"""Stars that were seen on many images, as tables of one row a detection."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gueststar.algorithms.association.sky_index import unit_vectors
from gueststar.algorithms.photocal.overlap import group_positions

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


class Detections(NamedTuple):
    """One row a detection of a star, in no particular order."""

    star: Indices
    """Which star it is, from 0."""
    image: Indices
    """On which image (exposure) it was seen, from 0."""
    ra: Floats
    """Degrees."""
    dec: Floats
    mag: Floats

    def select(self, chosen: NDArray[np.bool_] | Indices) -> Detections:
        """Return some of the rows."""
        return Detections._make(values[chosen] for values in self)

    @property
    def n_stars(self) -> int:
        """Return one more than the highest number of a star."""
        return int(self.star.max()) + 1 if self.star.size else 0

    @property
    def n_images(self) -> int:
        """Return one more than the highest number of an image."""
        return int(self.image.max()) + 1 if self.image.size else 0


def match_detections(
    image: ArrayLike, ra: ArrayLike, dec: ArrayLike, mag: ArrayLike, *, radius_arcsec: float = 1.0
) -> Detections:
    """Return which star each detection is: those of different images within a radius are one star.

    ``image`` numbers the exposures from 0; one star is at most once on an image.
    """
    number = np.asarray(image, dtype=np.intp)
    order = np.argsort(number, kind="stable")
    columns = [np.asarray(values, dtype=np.float64)[order] for values in (ra, dec, mag)]
    bounds = np.cumsum(np.bincount(number))[:-1] if number.size else np.zeros(0, dtype=np.intp)
    places = np.split(unit_vectors(columns[0], columns[1]), bounds)
    labels = group_positions(places, radius=float(np.radians(radius_arcsec / 3600.0)))
    star = np.concatenate(labels) if labels else np.zeros(0, dtype=np.intp)
    return Detections(star.astype(np.intp), number[order], *columns)


def seen_often(rows: Detections, *, at_least: int) -> Detections:
    """Return the detections of stars that were seen on so many images, renumbered."""
    counts = np.bincount(rows.star, minlength=rows.n_stars)
    kept = rows.select(counts[rows.star] >= at_least)
    _, star = np.unique(kept.star, return_inverse=True)
    return kept._replace(star=star.astype(np.intp))


def mean_positions(rows: Detections) -> tuple[Floats, Floats, Indices]:
    """Return the mean place of every star (degrees) and how often it was seen."""
    n = np.bincount(rows.star, minlength=rows.n_stars)
    vectors = unit_vectors(rows.ra, rows.dec)
    sums = np.stack([np.bincount(rows.star, vectors[:, k], minlength=rows.n_stars) for k in range(3)], axis=1)
    ra = np.degrees(np.arctan2(sums[:, 1], sums[:, 0])) % 360.0
    return ra, np.degrees(np.arctan2(sums[:, 2], np.hypot(sums[:, 0], sums[:, 1]))), n


def mean_magnitudes(rows: Detections) -> Floats:
    """Return the mean magnitude of every star; NaN for one without detections."""
    n = np.bincount(rows.star, minlength=rows.n_stars)
    sums = np.bincount(rows.star, rows.mag, minlength=rows.n_stars)
    return np.where(n > 0, sums / np.maximum(n, 1), np.nan)
