"""A detector's own distortion: how far from its pixel the light of the ideal focal plane falls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.polynomial import (
    PlaneMap,
    n_terms,
    order_of,
    polynomial_powers,
)

Floats = NDArray[np.float64]


def detector_frame(x: Floats, y: Floats, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return positions as -1..1 from edge to edge of a detector of ``shape`` (ny, nx)."""
    return (x - (shape[1] - 1) / 2.0) / (shape[1] / 2.0), (y - (shape[0] - 1) / 2.0) / (shape[0] / 2.0)


def legendre_terms(u: Floats, v: Floats, order: int) -> Floats:
    """Return ``[n, n_terms]``: P_i(u) P_j(v) in the order of `polynomial_powers`."""
    of_u, of_v = legendre.legvander(u, order), legendre.legvander(v, order)
    return np.stack([of_u[:, i] * of_v[:, j] for i, j in polynomial_powers(order)], axis=1)


def legendre_to_powers(shape: tuple[int, int], order: int, unit: float) -> Floats:
    """Return the matrix ``[n_terms, n_terms]`` that takes coefficients of `legendre_terms` (a row) to those of powers.

    The powers' variables are pixel offsets from the detector's centre over ``unit``, as in `PlaneMap`.
    """
    stretch = (unit / (shape[1] / 2.0), unit / (shape[0] / 2.0))
    of = [
        [legendre.leg2poly(np.eye(order + 1)[k])[: k + 1] * s ** np.arange(k + 1) for k in range(order + 1)]
        for s in stretch
    ]
    powers = polynomial_powers(order)
    column = {power: k for k, power in enumerate(powers)}
    matrix = np.zeros((len(powers), len(powers)))
    for row, (i, j) in enumerate(powers):
        for (a, b), value in np.ndenumerate(np.outer(of[0][i], of[1][j])):
            matrix[row, column[a, b]] += value
    return matrix


@dataclass(frozen=True, eq=False)
class Distortion:
    """A displacement in pixels, as a series of Legendre polynomials, free of any shift, rotation and change of scale.

    ``coefficients`` ``[2, n_terms]`` (x, y): ideal position = pixel + series; ``error`` says how well each is
    known, ``change`` by how much it differs from exposure to exposure (same form, one sigma).
    """

    shape: tuple[int, int]
    coefficients: Floats
    error: Floats
    change: Floats

    @property
    def order(self) -> int:
        """Total order of the series."""
        return order_of(self.coefficients)

    def displacement(self, x: Floats, y: Floats) -> Floats:
        """Return ``[n, 2]``, pixels."""
        u, v = detector_frame(x, y, self.shape)
        return np.asarray(legendre_terms(u, v, self.order) @ self.coefficients.T)

    def to_ideal(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return the ideal positions of pixels."""
        moved = self.displacement(x, y)
        return x + moved[:, 0], y + moved[:, 1]

    def to_pixel(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return the pixels of ideal positions (by iteration; distortions are small), good to 1e-9 pixel."""
        px, py = np.array(x), np.array(y)
        for _ in range(60):
            there = self.to_ideal(px, py)
            step = (x - there[0], y - there[1])
            px, py = px + step[0], py + step[1]
            if x.size == 0 or max(np.max(np.abs(step[0])), np.max(np.abs(step[1]))) < 1e-9:
                break
        return px, py

    def plane_map(self, matrix: Floats, at_centre: Floats) -> PlaneMap:
        """Return the map to a plane: ``matrix`` (arcsec per pixel) on the ideal offsets from the centre, plus a shift.

        The map has its origin in the detector's middle and half the diagonal as unit.
        """
        ny, nx = self.shape
        x0, y0 = (nx - 1) / 2.0, (ny - 1) / 2.0
        unit = max(float(np.hypot(x0, y0)), 1.0)
        pixels = self.coefficients @ legendre_to_powers(self.shape, self.order, unit)
        pixels[0, 1] += unit
        pixels[1, 2] += unit
        coefficients = matrix @ pixels
        coefficients[:, 0] += at_centre
        return PlaneMap(coefficients, x0, y0, unit)

    def precision(self, plane_map: PlaneMap) -> Floats:
        """Return the inverse covariance ``[2 n_terms, 2 n_terms]`` of a correction to a map that holds this distortion.

        The correction's coefficients are those of the map, xi before eta, arcsec; shift, rotation and scale are free.
        """
        n = n_terms(self.order)
        weight = 1.0 / np.maximum(self.error**2 + self.change**2, 1e-12)
        weight[:, 0] = 0.0
        in_pixels = np.diag(weight.ravel())
        # Linear terms: only the two that are neither rotation nor scale are held.
        half = np.array([self.shape[1], self.shape[0]]) / 2.0
        rows = [k * n + t for k in (0, 1) for t in (1, 2)]
        slope = np.diag([1.0 / half[0], 1.0 / half[1], 1.0 / half[0], 1.0 / half[1]])
        shear = np.array([[0.5, 0.0, 0.0, -0.5], [0.0, 0.5, 0.5, 0.0]]) @ slope
        known = 1.0 / np.maximum(np.array([shear_error(self, 0), shear_error(self, 1)]), 1e-9) ** 2
        in_pixels[np.ix_(rows, rows)] = shear.T @ np.diag(known) @ shear
        to_powers = legendre_to_powers(self.shape, self.order, plane_map.unit)
        back = np.kron(np.linalg.inv(plane_map.matrix), np.linalg.inv(to_powers).T)
        return np.asarray(back.T @ in_pixels @ back)


def shear_of(coefficients: Floats, shape: tuple[int, int]) -> tuple[float, float]:
    """Return the two components of the shear in the linear terms: (dx/dx - dy/dy) / 2 and (dx/dy + dy/dx) / 2."""
    hx, hy = shape[1] / 2.0, shape[0] / 2.0
    (xx, xy), (yx, yy) = coefficients[:, 1:3] / np.array([hx, hy])
    return float(xx - yy) / 2.0, float(xy + yx) / 2.0


def shear_error(distortion: Distortion, component: int) -> float:
    """Return how well the distortion foretells a component of the shear in one exposure."""
    hx, hy = distortion.shape[1] / 2.0, distortion.shape[0] / 2.0
    variance = (distortion.error**2 + distortion.change**2)[:, 1:3] / np.array([hx, hy]) ** 2
    pair = (variance[0, 0], variance[1, 1]) if component == 0 else (variance[0, 1], variance[1, 0])
    return float(np.sqrt(sum(pair))) / 2.0


def without_similarity(coefficients: Floats, shape: tuple[int, int]) -> Floats:
    """Return the series ``[2, n]`` less its shift, rotation and change of scale at the detector's linear terms."""
    result = np.array(coefficients)
    result[:, 0] = 0.0
    p, q = shear_of(coefficients, shape)
    hx, hy = shape[1] / 2.0, shape[0] / 2.0
    result[:, 1:3] = [[p * hx, q * hy], [q * hx, -p * hy]]
    return result
