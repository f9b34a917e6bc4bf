"""The light of a star beyond the stamp of its PSF model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.psf.evaluate import normalised, polynomial_terms
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps

Floats64 = NDArray[np.float64]


class FarWing(NamedTuple):
    """A power law that goes on where the stamp in the middle of the image ends; light is per unit within the stamp."""

    exponent: float
    radius: float
    """Of the ring that it starts from, pixels."""
    value: float
    """Light of a pixel at that radius."""
    half: int
    """Half-side of the stamp, pixels."""

    @property
    def outside(self) -> float:
        """Light beyond the square that the stamp is."""
        angle = np.linspace(0.0, np.pi / 4.0, 16)
        beyond = 2.0 * np.pi * self.radius**2 * self.value / (self.exponent - 2.0)
        squareness = float(np.mean(np.cos(angle) ** (self.exponent - 2.0)))
        return beyond * ((self.half + 0.5) / self.radius) ** (2.0 - self.exponent) * squareness

    def reach(self, *, flux: float, floor: float) -> float:
        """Return the radius, pixels, at which a pixel gets no more than ``floor`` of a star's ``flux``."""
        return float(self.radius * max(flux * self.value / floor, 1.0) ** (1.0 / self.exponent))


def far_wing(psf: SplinePsf, *, slopes: tuple[float, float] = (3.0, 7.0)) -> FarWing | None:
    """Return the wing whose exponent (held within ``slopes``) is that of the outer half of the middle stamp.

    None where that has no light.
    """
    ny, nx = psf.shape
    middle = shifted_stamps(
        psf, x=np.array([0.5 * (nx - 1)]), y=np.array([0.5 * (ny - 1)]), dx=np.zeros(1), dy=np.zeros(1)
    )[0].astype(np.float64)
    g = np.arange(-psf.half, psf.half + 1)
    r = np.hypot(g[:, None], g[None, :])
    rings = [middle[(r >= a * psf.half) & (r < b * psf.half)].mean() for a, b in ((0.45, 0.55), (0.9, 1.0))]
    if min(rings) <= 0.0:
        return None
    exponent = float(np.clip(np.log(rings[0] / rings[1]) / np.log(0.95 / 0.5), *slopes))
    return FarWing(exponent, 0.95 * psf.half, float(rings[1] / middle.sum()), int(psf.half))


def relative_width(psf: SplinePsf, *, x: Floats64, y: Floats64, nodes: int = 5) -> Floats64:
    """Return the width of the PSF over that in the middle, from its effective area, smooth in position."""
    ny, nx = psf.shape
    order = min(psf.order, 2)
    at_y, at_x = (a.ravel() for a in np.meshgrid(np.linspace(0, ny - 1, nodes), np.linspace(0, nx - 1, nodes)))
    stamps = shifted_stamps(psf, x=at_x, y=at_y, dx=np.zeros(at_x.size), dy=np.zeros(at_x.size))
    area = stamps.sum(axis=(1, 2), dtype=np.float64) ** 2 / np.sum(stamps.astype(np.float64) ** 2, axis=(1, 2))
    terms = polynomial_terms(*normalised(at_x, at_y, psf.shape), order)
    fit = np.linalg.lstsq(terms.T, 0.5 * np.log(area), rcond=None)[0]
    # The terms but the first vanish in the middle.
    return np.asarray(np.exp(fit[1:] @ polynomial_terms(*normalised(x, y, psf.shape), order)[1:]))


def loss_correction(psf: SplinePsf, *, x: Floats64, y: Floats64, slopes: tuple[float, float] = (3.0, 7.0)) -> Floats64:
    """Return what PSF fluxes must be multiplied with for the light beyond the stamps, relative to the middle.

    Where the PSF is wider, more of it lies beyond its stamps, which are normalised to one everywhere. The wing is
    scaled with the local width: the light outside goes as ``width**(exponent - 2)``.
    """
    wing = far_wing(psf, slopes=slopes)
    if wing is None:
        return np.ones(len(x))
    grown = np.minimum(wing.outside * relative_width(psf, x=x, y=y) ** (wing.exponent - 2.0), 0.1)
    return np.asarray((1.0 - min(wing.outside, 0.1)) / (1.0 - grown))


def add_far_wings_in_place(
    light: Floats64, psf: SplinePsf, *, x: Floats64, y: Floats64, flux: Floats64, floor: float, most: int = 300
) -> None:
    """Add to an image what stars have beyond their stamps, out to where a pixel gets ``floor``.

    ``flux`` is the light within the stamp; no wing is longer than ``most`` pixels.
    """
    wing = far_wing(psf)
    if wing is None or x.size == 0:
        return
    width = relative_width(psf, x=x, y=y)
    ny, nx = light.shape
    for px, py, total in zip(x, y, flux * width ** (wing.exponent - 2.0), strict=True):
        reach = min(int(wing.reach(flux=total, floor=floor)), most)
        if reach <= wing.half:
            continue
        cx, cy = round(px), round(py)
        rows, columns = (slice(max(c - reach, 0), min(c + reach + 1, n)) for c, n in ((cy, ny), (cx, nx)))
        v, u = np.ogrid[rows, columns]
        r = np.hypot(u - px, v - py)
        is_beyond = (np.maximum(np.abs(u - cx), np.abs(v - cy)) > wing.half) & (r <= reach)
        light[rows, columns] += np.where(
            is_beyond, total * wing.value * (np.maximum(r, 1.0) / wing.radius) ** -wing.exponent, 0.0
        )
