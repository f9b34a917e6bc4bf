"""Least squares for the samples of a PSF that varies over the image.

The unknowns are the samples themselves, one polynomial in position each. A star constrains them through the
B-splines between the samples, so its sub-pixel phase and missing pixels are accounted for, and undersampled images
gain from the many phases. A prior (the round profile) holds what the stars leave open. The normal equations
are solved by conjugate gradients without ever being written down, preconditioned by what they say of each sample alone:
the polynomial terms of one sample are far from independent, those of two samples nearly are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.psf.spline import padding, spline_weights

Floats32 = NDArray[np.float32]
Floats64 = NDArray[np.float64]


class StarStamps(NamedTuple):
    """Pixels of stars, each divided by its flux."""

    value: Floats32
    """``[n, side, side]``."""
    weight: Floats32
    """Inverse variance of ``value``; zero where a pixel is not to be used."""
    dx: Floats64
    """Centre of each star from the middle of its stamp, pixels (-0.5 to 0.5)."""
    dy: Floats64
    terms: Floats64
    """``[n, n_terms]`` polynomial terms at each star's position."""


def solve_samples(
    stars: StarStamps,
    prior: Floats64,
    prior_sigma: Floats64,
    *,
    oversampling: int,
    start: Floats64 | None = None,
    iterations: int = 25,
    tolerance: float = 1e-4,
) -> Floats64:
    """Return the samples ``[n_terms, k, k]`` that fit the stars best, given a Gaussian prior of that shape.

    ``start`` saves iterations where the answer is nearly known. The iteration ends when the residual of
    the normal equations has fallen by ``tolerance``, in the metric of the preconditioner.
    """
    operator = _Operator(stars, prior.shape, oversampling)
    precision = 1.0 / prior_sigma**2
    inverse = np.asarray(np.linalg.inv(operator.blocks(precision)), dtype=np.float64)
    x = (prior if start is None else start).copy()
    right = operator.adjoint_of_data() + precision * prior
    residual = right - (operator.normal(x) + precision * x)
    reference = float(np.sum(right * _each_sample(inverse, right)))
    z = _each_sample(inverse, residual)
    direction, rho = z.copy(), float(np.sum(residual * z))
    for _ in range(iterations):
        if rho <= tolerance**2 * reference:
            break
        image = operator.normal(direction) + precision * direction
        alpha = rho / float(np.sum(direction * image))
        x += alpha * direction
        residual -= alpha * image
        z = _each_sample(inverse, residual)
        rho, previous = float(np.sum(residual * z)), rho
        direction = z + (rho / previous) * direction
    return x


def _each_sample(matrices: Floats64, terms: Floats64) -> Floats64:
    """Return the product of each sample's matrix ``[k, k, n_terms, n_terms]`` with its terms ``[n_terms, k, k]``."""
    return np.moveaxis((matrices @ np.moveaxis(terms, 0, -1)[..., None])[..., 0], -1, 0)


class _Operator:
    """The normal operator of the stars' pixels: samples to samples."""

    def __init__(self, stars: StarStamps, shape: tuple[int, ...], oversampling: int) -> None:
        self.stars, self.oversampling = stars, oversampling
        self.n_terms, self.k = shape[0], shape[1]
        self.terms = stars.terms.astype(np.float32)
        bands = np.diag(np.full(self.k, 4.0)) + np.diag(np.ones(self.k - 1), 1) + np.diag(np.ones(self.k - 1), -1)
        self.filter = np.linalg.inv(bands / 6.0)

    def normal(self, samples: Floats64) -> Floats64:
        pad = padding(self.oversampling)
        splines = np.pad(self.filter @ samples @ self.filter, ((0, 0), (pad, pad), (pad, pad)))
        local = self.terms @ splines.reshape(self.n_terms, -1).astype(np.float32)
        _to_pixels_and_back(
            local.reshape(len(local), *splines.shape[1:]),
            self.stars.weight,
            self.stars.dx,
            self.stars.dy,
            self.oversampling,
        )
        return self._gathered(local)

    def adjoint_of_data(self) -> Floats64:
        side = self.k + 2 * padding(self.oversampling)
        local = np.zeros((len(self.terms), side, side), dtype=np.float32)
        pixels = self.stars.weight * self.stars.value
        for_all = (self.stars.dx, self.stars.dy, self.oversampling)
        _spread(pixels, *for_all, local)
        return self._gathered(local.reshape(len(local), -1))

    def blocks(self, precision: Floats64) -> Floats64:
        """Return ``[k, k, n_terms, n_terms]``: of each sample, what its terms have to do with each other.

        ``precision`` (``[n_terms, k, k]``) is added to their diagonals. The splines' inverse filter is taken for the
        identity, which it is in the mean.
        """
        pad = padding(self.oversampling)
        side = self.k + 2 * pad
        local = np.zeros((len(self.terms), side, side), dtype=np.float32)
        _spread(self.stars.weight, self.stars.dx, self.stars.dy, self.oversampling, local)
        products = self.terms[:, :, None] * self.terms[:, None, :]
        summed = products.reshape(len(local), -1).T @ local.reshape(len(local), -1)
        inner = summed.reshape(self.n_terms, self.n_terms, side, side)[..., pad : side - pad, pad : side - pad]
        blocks = np.moveaxis(inner, (0, 1), (-2, -1)).astype(np.float64)
        every = np.arange(self.n_terms)
        blocks[..., every, every] += np.moveaxis(precision, 0, -1)
        return blocks

    def _gathered(self, local: Floats32) -> Floats64:
        pad = padding(self.oversampling)
        side = self.k + 2 * pad
        summed = (self.terms.T @ local.reshape(len(local), -1)).reshape(self.n_terms, side, side)
        inner = summed[:, pad : side - pad, pad : side - pad].astype(np.float64)
        return np.asarray(self.filter @ inner @ self.filter)


@njit(cache=True, error_model="numpy")
def _star_taps(offset: float, oversampling: int, middle: int, weights: Floats32, slopes: Floats32) -> int:
    s = -oversampling * offset
    whole = int(np.floor(s))
    spline_weights(s - whole, weights, slopes)
    return middle + whole - 1


@njit(cache=True, error_model="numpy")
def _spread(pixels: Floats32, dx: Floats64, dy: Floats64, oversampling: int, local: Floats32) -> None:
    """Add each star's pixels to the splines that make them, with the splines' weights."""
    side = pixels.shape[1]
    half, middle = side // 2, local.shape[1] // 2
    wx, wy, slopes = np.empty(4, np.float32), np.empty(4, np.float32), np.empty(4, np.float32)
    rows = np.empty(local.shape[2], np.float32)
    for n in range(pixels.shape[0]):
        x0 = _star_taps(dx[n], oversampling, middle, wx, slopes) - oversampling * half
        y0 = _star_taps(dy[n], oversampling, middle, wy, slopes) - oversampling * half
        for j in range(side):
            rows[:] = 0
            for i in range(side):
                p = pixels[n, j, i]
                c = x0 + oversampling * i
                for k in range(4):
                    rows[c + k] += wx[k] * p
            for k in range(4):
                w, line = wy[k], local[n, y0 + oversampling * j + k]
                for c in range(rows.size):
                    line[c] += w * rows[c]


@njit(cache=True, error_model="numpy")
def _to_pixels_and_back(local: Floats32, weight: Floats32, dx: Floats64, dy: Floats64, oversampling: int) -> None:
    """Replace each star's splines by (splines to pixels, times weight, back to splines)."""
    side = weight.shape[1]
    half, middle, fine = side // 2, local.shape[1] // 2, local.shape[2]
    wx, wy, slopes = np.empty(4, np.float32), np.empty(4, np.float32), np.empty(4, np.float32)
    row, back = np.empty(fine, np.float32), np.empty((side, fine), np.float32)
    for n in range(weight.shape[0]):
        x0 = _star_taps(dx[n], oversampling, middle, wx, slopes) - oversampling * half
        y0 = _star_taps(dy[n], oversampling, middle, wy, slopes) - oversampling * half
        own = local[n]
        for j in range(side):
            y = y0 + oversampling * j
            l0, l1, l2, l3 = own[y], own[y + 1], own[y + 2], own[y + 3]
            for c in range(fine):
                row[c] = wy[0] * l0[c] + wy[1] * l1[c] + wy[2] * l2[c] + wy[3] * l3[c]
            line = back[j]
            line[:] = 0
            for i in range(side):
                c = x0 + oversampling * i
                p = wx[0] * row[c] + wx[1] * row[c + 1] + wx[2] * row[c + 2] + wx[3] * row[c + 3]
                p *= weight[n, j, i]
                line[c] += wx[0] * p
                line[c + 1] += wx[1] * p
                line[c + 2] += wx[2] * p
                line[c + 3] += wx[3] * p
        own[:] = 0
        for j in range(side):
            line = back[j]
            for k in range(4):
                w, target = wy[k], own[y0 + oversampling * j + k]
                for c in range(fine):
                    target[c] += w * line[c]
