"""A pixel-basis PSF that varies over the image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.psf.evaluate import (
    crop_or_pad,
    evaluate_fwhm,
    evaluate_stamp,
    evaluate_stamps,
    normalised,
    polynomial_terms,
    stamp_sums,
)
from gueststar.algorithms.psf.spline import SplinePsf, shifted_stamps, spline_psf
from gueststar.core.errors import DataError


@dataclass(frozen=True, eq=False)
class Psf:
    """Spatially varying PSF: each stamp pixel is a polynomial in image position.

    ``coefficients`` is float32 ``[n_terms, k, k]`` with k odd; terms are products ``u**i * v**j`` with
    ``i + j <= order`` in the order of `gueststar.algorithms.psf.evaluate.polynomial_terms`, where
    ``u = 2 x / (nx - 1) - 1`` and ``v = 2 y / (ny - 1) - 1`` run from -1 to 1 over the image of
    ``shape`` (ny, nx). ``oversampling`` is the number of stamp samples per image pixel along one axis
    (1: samples are pixel-integrated values at integer offsets from the source's centre).
    Stamps are normalised so that the pixel-sampled PSF sums to one.
    """

    coefficients: NDArray[np.float32]
    order: int
    shape: tuple[int, int]
    oversampling: int = 1

    def __post_init__(self) -> None:
        n_terms = (self.order + 1) * (self.order + 2) // 2
        if self.coefficients.ndim != 3 or self.coefficients.shape[0] != n_terms:
            raise DataError(f"PSF of order {self.order} needs [{n_terms}, k, k], got {self.coefficients.shape}")
        if self.coefficients.shape[1] != self.coefficients.shape[2] or self.coefficients.shape[1] % 2 == 0:
            raise DataError(f"PSF stamps must be square with an odd side, got {self.coefficients.shape[1:]}")
        if not np.all(np.isfinite(self.coefficients)):
            raise DataError("PSF coefficients are not finite")

    def stamp(self, *, x: float, y: float, dx: float = 0.0, dy: float = 0.0, side: int = 0) -> NDArray[np.float32]:
        """Return the image-pixel-sampled PSF at image position (x, y), its centre shifted by (dx, dy) pixels.

        The stamp is ``[side, side]`` (the model's own size when 0), sums to one over the model's size,
        and its middle pixel is where (dx, dy) = (0, 0) puts the centre.
        """
        return evaluate_stamp(
            self.coefficients, self.order, self.shape, self.oversampling, x=x, y=y, dx=dx, dy=dy, side=side
        )

    def stamps(self, *, x: NDArray[np.float64], y: NDArray[np.float64], side: int = 0) -> NDArray[np.float32]:
        """Return centred stamps ``[n, side, side]`` at many image positions."""
        return evaluate_stamps(self.coefficients, self.order, self.shape, self.oversampling, x=x, y=y, side=side)

    def placed_stamps(self, *, x: NDArray[np.float64], y: NDArray[np.float64], side: int = 0) -> NDArray[np.float32]:
        """Return stamps ``[n, side, side]`` about each position's nearest pixel, centred at the position itself.

        They are what photometry at (x, y) needs: the sub-pixel phase is in them. They sum to one over the
        model's size, but for what the phase moves over the edge.
        """
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        placed = shifted_stamps(self.spline, x=x, y=y, dx=x - np.rint(x), dy=y - np.rint(y))
        placed /= self.stamp_sums(x=x, y=y)[:, None, None]
        return crop_or_pad(placed, side)

    def stamp_sums(self, *, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return what centred stamps as the coefficients give them add up to, by which they are to be divided."""
        return stamp_sums(self.coefficients, self.order, self.shape, self.oversampling, x=x, y=y)

    def samples(self, *, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the model's own samples ``[n, k, k]``, ``oversampling`` a pixel, scaled so that stamps sum to one."""
        terms = polynomial_terms(*normalised(x, y, self.shape), self.order).T.astype(np.float32)
        terms /= self.stamp_sums(x=x, y=y)[:, None]
        return np.asarray(np.tensordot(terms, self.coefficients, axes=1))

    @cached_property
    def spline(self) -> SplinePsf:
        """The model as splines, for rendering stars at any sub-pixel place."""
        return spline_psf(self.coefficients, self.order, self.shape, self.oversampling)

    def fwhm(self, *, x: float, y: float) -> float:
        """Return the full width at half maximum at (x, y), pixels (of the circle of equal half-maximum area)."""
        return evaluate_fwhm(self.coefficients, self.order, self.shape, self.oversampling, x=x, y=y)

    @cached_property
    def central_fwhm(self) -> float:
        """FWHM at the middle of the image, pixels."""
        return self.fwhm(x=(self.shape[1] - 1) / 2, y=(self.shape[0] - 1) / 2)
